//! `audit`: what the broker did. It reads the files themselves, so that a broker that lies about its log is no obstacle.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use portcullis_broker::AUDIT_FOLDER;
use portcullis_broker::audit::{RememberedHead, Segment, Signature, Verified, segments, verify};
use portcullis_broker::config::DEFAULT_DATA_FOLDER;
use serde::Serialize;
use serde_json::Value;

use super::failure::Failure;
use super::screen::Screen;

/// How often a followed log is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Show the last records of the audit log, and with --follow those that come
    Tail(Tail),
    /// Read the whole audit log and find what was altered; with --against, what was cut off
    Verify(Verify),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  portcullis-broker audit tail --data /var/lib/portcullis -n 50
  portcullis-broker audit tail --follow --json | jq 'select(.event.what == \"x509-issued\")'")]
pub(crate) struct Tail {
    /// How many records
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    lines: usize,
    /// Go on showing records as they are written
    #[arg(short, long)]
    follow: bool,
    /// Print the records as they are written: one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A log that was cut at the end of a record hangs together still. Every sidecar remembers how long the log was and what stood last \
in it: its `status --json`, or the file `audit.json` in its state folder, prove a cut.

Examples:
  portcullis-broker audit verify --data /var/lib/portcullis
  portcullis-sidecar status --json > seen.json && portcullis-broker audit verify --against seen.json

Exit codes: 0 the log is whole, 1 it cannot be read, 3 it was altered."
)]
pub(crate) struct Verify {
    /// What a sidecar remembers: its `status --json`, or `audit.json` of its state folder
    #[arg(long, value_name = "FILE")]
    against: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct Place {
    /// The broker's data folder
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA_FOLDER)]
    data: PathBuf,
}

/// A log that is whole, in JSON.
#[derive(Debug, Serialize)]
struct Whole {
    first: u64,
    records: u64,
    hash: String,
    files: usize,
    /// Bytes of a record that is not whole yet.
    unfinished: usize,
    against: Vec<Witness>,
}

/// A remembered head that the log still holds, in JSON.
#[derive(Debug, Serialize)]
struct Witness {
    file: PathBuf,
    records: u64,
    /// Whether the head was checked at all, and its signature: `good`, `unknown-key`, `archived`.
    signature: &'static str,
}

impl Audit {
    pub(crate) async fn execute(self, screen: &mut Screen) -> Result<(), Failure> {
        match self {
            Self::Tail(command) => command.execute(screen).await,
            Self::Verify(command) => command.execute(screen),
        }
    }
}

impl Place {
    fn folder(&self) -> PathBuf {
        self.data.join(AUDIT_FOLDER)
    }
}

impl Tail {
    async fn execute(self, screen: &mut Screen) -> Result<(), Failure> {
        let folder = self.place.folder();
        let mut reader = Reader::at_end(&folder, self.lines)?;
        loop {
            for line in reader.lines()? {
                if self.json { screen.line(line)? } else { screen.line(shown(&line))? }
            }
            if !self.follow {
                return Ok(());
            }
            screen.show()?;
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
        }
    }
}

/// Reads a log from some record on.
struct Reader {
    folder: PathBuf,
    segment: Segment,
    offset: u64,
}

impl Reader {
    /// A reader before the last `count` records.
    fn at_end(folder: &Path, count: usize) -> Result<Self, Failure> {
        let segments = list(folder)?;
        let mut missing = count;
        let mut newest_first = segments.into_iter().rev().peekable();
        while let Some(segment) = newest_first.next() {
            let mut reader = Self { folder: folder.to_owned(), segment, offset: 0 };
            let lines = reader.rest()?;
            let skipped = lines.len().saturating_sub(missing);
            missing = missing.saturating_sub(lines.len());
            if missing == 0 || newest_first.peek().is_none() {
                reader.offset = lines.iter().take(skipped).map(|line| length(line)).sum();
                return Ok(reader);
            }
        }
        Err(no_log(folder))
    }

    /// Every whole record after those that were read.
    fn lines(&mut self) -> Result<Vec<String>, Failure> {
        let mut lines = Vec::new();
        loop {
            // The list is read first: where a later file exists, this one is complete.
            let next = list(&self.folder)?.into_iter().find(|segment| segment.first > self.segment.first);
            let rest = self.rest()?;
            self.offset = self.offset.saturating_add(rest.iter().map(|line| length(line)).sum());
            lines.extend(rest);
            let Some(next) = next else { return Ok(lines) };
            (self.segment, self.offset) = (next, 0);
        }
    }

    fn rest(&self) -> Result<Vec<String>, Failure> {
        let mut text = Vec::new();
        let read = File::open(&self.segment.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.read_to_end(&mut text)
        });
        read.map_err(|error| Failure::broken(format!("cannot read `{}`: {error}", self.segment.path.display())))?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |position| position.saturating_add(1));
        text.truncate(whole);
        let text = String::from_utf8(text)
            .map_err(|_| Failure::broken(format!("`{}` is not text", self.segment.path.display())))?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// Bytes of a line in the file.
fn length(line: &str) -> u64 {
    u64::try_from(line.len().saturating_add(1)).unwrap_or(u64::MAX)
}

fn list(folder: &Path) -> Result<Vec<Segment>, Failure> {
    segments(folder).map_err(|error| Failure::broken(format!("{error}; --data says where the broker keeps its data")))
}

fn no_log(folder: &Path) -> Failure {
    Failure::broken(format!(
        "there is no audit log in `{}`; --data says where the broker keeps its data",
        folder.display()
    ))
}

/// A record for people.
fn shown(line: &str) -> String {
    let Ok(record) = serde_json::from_str::<Value>(line) else { return line.to_owned() };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let field = |name: &str| record.get(name).map(text).unwrap_or_default();
    let event = record.get("event").and_then(Value::as_object);
    let what = event.and_then(|event| event.get("what")).map(text).unwrap_or_default();
    let rest = event.into_iter().flatten().filter(|(name, _)| *name != "what");
    let rest: Vec<_> = rest.map(|(name, value)| format!("{name}={}", text(value))).collect();
    format!("{} #{} {what} {}", field("at"), field("n"), rest.join(" ")).trim_end().to_owned()
}

impl Verify {
    fn execute(self, screen: &mut Screen) -> Result<(), Failure> {
        let folder = self.place.folder();
        let altered = |error: portcullis_broker::audit::VerifyError| {
            use portcullis_broker::audit::VerifyError as E;
            match error {
                E::Folder(_) | E::Io { .. } | E::NoLog(_) => Failure::broken(error.to_string()),
                E::Broken { .. } | E::Misplaced { .. } | E::Truncated { .. } | E::Rewritten(_) | E::Forged => {
                    Failure::refused(format!("the audit log is not whole: {error}"))
                }
            }
        };
        let mut against = Vec::new();
        for file in self.against {
            let remembered = remembered(&file)?;
            let Verified { signature, .. } = verify(&folder, Some(&remembered)).map_err(altered)?;
            let signature = match signature {
                Some(Signature::Good) => "good",
                Some(Signature::UnknownKey) => "unknown-key",
                None => "archived",
            };
            against.push(Witness { file, records: remembered.head().records, signature });
        }
        let Verified { first, head, files, unfinished, signature: _ } = verify(&folder, None).map_err(altered)?;
        let hash = head.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let whole = Whole { first, records: head.records, hash, files, unfinished, against };
        if self.json { screen.json(&whole) } else { whole.print(screen) }
    }
}

impl Whole {
    fn print(&self, screen: &mut Screen) -> Result<(), Failure> {
        let Self { first, records, hash, files, unfinished: _, against } = self;
        screen.line(format!("whole: records {first} to {records} in {files} file(s), the last is {hash}"))?;
        for Witness { file, records, signature } in against {
            let file = file.display();
            screen.line(match *signature {
                "good" => format!("holds what {file} remembers: record {records}, signed by this broker"),
                "archived" => format!("{file} remembers record {records}, which lies in an archived file"),
                _ => format!("holds what {file} remembers: record {records}; who signed it is not known to the log"),
            })?;
        }
        Ok(())
    }
}

fn remembered(file: &Path) -> Result<RememberedHead, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::broken(format!("cannot read `{}`: {error}", file.display())))?;
    RememberedHead::parse(&text).map_err(|error| Failure::misused(format!("`{}`: {error}", file.display())))
}
