//! References of images, read as a wasmCloud host reads them: what a policy sees must be what the host fetches.

use std::str::FromStr;

/// In bytes: a repository, a tag and a digest of 128 digits are shorter.
const LONGEST: usize = 1024;
/// The providers that are part of a 1.9 host.
const BUILTINS: [&str; 3] = ["http-client", "http-server", "messaging-nats"];
/// Of an image without registry.
const HUB: &str = "docker.io";

/// Where a component or provider comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    text: String,
    source: ImageSource,
}

/// What kind of place that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// An OCI registry.
    Oci {
        /// `HOST` or `HOST:PORT`, in lower case.
        registry: String,
        /// The path there.
        repository: String,
        /// What a publisher may move; `latest` where the reference has neither tag nor digest.
        tag: Option<String>,
        /// `ALGORITHM:HEX` of the content, where the reference pins it.
        digest: Option<String>,
    },
    /// A file of the host's machine.
    File,
    /// A provider that is part of the host.
    Builtin,
}

/// Not the reference of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidImage {
    /// It is empty or too long, or has letters that hosts read in more than one way.
    #[error("it is not 1 to {LONGEST} printable ASCII letters")]
    Text,
    /// The scheme is not written as hosts want it.
    #[error("its scheme is not written in lower case, with `://`")]
    Scheme,
    /// No image of a registry.
    #[error("it is not `REGISTRY/REPOSITORY:TAG@DIGEST`")]
    Oci,
    /// What it pins is no digest.
    #[error("its digest is not `sha256:`, `sha384:` or `sha512:` and lower-case hex digits")]
    Digest,
}

impl ImageReference {
    /// That of a provider, as a 1.9 host asks about it: it has taken the scheme off before. A path is then a file, and the bare name of a builtin
    /// provider is that one, not the image of Docker's own library that would be called so.
    ///
    /// # Errors
    /// [`InvalidImage`]
    pub fn of_provider(text: &str) -> Result<Self, InvalidImage> {
        let source = if BUILTINS.contains(&text) {
            ImageSource::Builtin
        } else if text.starts_with('/') && text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            ImageSource::File
        } else {
            return text.parse();
        };
        Ok(Self { text: text.to_owned(), source })
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it says.
    #[must_use]
    pub fn source(&self) -> &ImageSource {
        &self.source
    }

    /// The digest, where it pins one.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        match &self.source {
            ImageSource::Oci { digest, .. } => digest.as_deref(),
            ImageSource::File | ImageSource::Builtin => None,
        }
    }
}

impl FromStr for ImageReference {
    type Err = InvalidImage;

    fn from_str(text: &str) -> Result<Self, InvalidImage> {
        // Hosts read a reference as a URL first, which drops tabs and spaces and folds the scheme.
        if !(1..=LONGEST).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidImage::Text);
        }
        let source = match scheme(text) {
            Some((scheme, rest)) => match (scheme.to_ascii_lowercase().as_str(), rest.strip_prefix("//")) {
                ("file" | "oci" | "wasmcloud+builtin" | "http" | "https", None) => return Err(InvalidImage::Scheme),
                ("file", Some(_)) => ImageSource::File,
                ("wasmcloud+builtin", Some(_)) if scheme == "wasmcloud+builtin" => ImageSource::Builtin,
                ("oci" | "http" | "https", Some(rest)) if scheme.bytes().all(|byte| byte.is_ascii_lowercase()) => {
                    oci(rest)?
                }
                ("oci" | "http" | "https" | "wasmcloud+builtin", Some(_)) => return Err(InvalidImage::Scheme),
                // `registry:5000/repository`
                _ => oci(text)?,
            },
            None => oci(text)?,
        };
        Ok(Self { text: text.to_owned(), source })
    }
}

/// What a URL would take for its scheme.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let letters = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    (scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && letters).then_some((scheme, rest))
}

fn oci(text: &str) -> Result<ImageSource, InvalidImage> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(checked_digest(digest)?)),
        None => (text, None),
    };
    // A colon before the last slash is that of a port.
    let last = rest.rfind('/').map_or(0, |slash| slash.saturating_add(1));
    let (path, last) = rest.split_at_checked(last).ok_or(InvalidImage::Oci)?;
    let (last, tag) = last.split_once(':').map_or((last, None), |(last, tag)| (last, Some(tag)));
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(InvalidImage::Oci);
    }
    let name = format!("{path}{last}");
    let (registry, repository) = match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => {
            (host.to_ascii_lowercase(), rest.to_owned())
        }
        Some(_) | None => (HUB.to_owned(), name),
    };
    let registry = if registry == "index.docker.io" { HUB.to_owned() } else { registry };
    let official = registry == HUB && !repository.contains('/');
    let repository = if official { format!("library/{repository}") } else { repository };
    if !is_registry(&registry) || !repository.split('/').all(is_segment) {
        return Err(InvalidImage::Oci);
    }
    let latest = digest.is_none().then(|| "latest".to_owned());
    Ok(ImageSource::Oci { registry, repository, tag: tag.map(str::to_owned).or(latest), digest })
}

fn checked_digest(text: &str) -> Result<String, InvalidImage> {
    let digits = |hex: &str| hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match text.split_once(':') {
        Some(("sha256", hex)) if hex.len() == 64 && digits(hex) => {}
        Some(("sha384", hex)) if hex.len() == 96 && digits(hex) => {}
        Some(("sha512", hex)) if hex.len() == 128 && digits(hex) => {}
        Some(_) | None => return Err(InvalidImage::Digest),
    }
    Ok(text.to_owned())
}

fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, "1"), |(host, port)| (host, port));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(label) && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_segment(text: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = text.as_bytes();
    ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-'))
}

fn is_tag(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, String, Option<String>, Option<String>) {
        match text.parse::<ImageReference>().unwrap().source().clone() {
            ImageSource::Oci { registry, repository, tag, digest } => (registry, repository, tag, digest),
            other @ (ImageSource::File | ImageSource::Builtin) => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_registrys_image_is_read_as_hosts_read_it() {
        let digest = format!("sha256:{}", "f".repeat(64));
        for (text, registry, repository, tag, pinned) in [
            ("busybox", "docker.io", "library/busybox", Some("latest"), false),
            ("test.com:5000", "docker.io", "library/test.com", Some("5000"), false),
            ("test.com/repo:tag", "test.com", "repo", Some("tag"), false),
            ("GHCR.io/acme/app:1", "ghcr.io", "acme/app", Some("1"), false),
            ("oci://ghcr.io/acme/app:1", "ghcr.io", "acme/app", Some("1"), false),
            ("https://ghcr.io/acme/app:1", "ghcr.io", "acme/app", Some("1"), false),
            ("test:5000/repo", "test:5000", "repo", Some("latest"), false),
            ("localhost/a/b", "localhost", "a/b", Some("latest"), false),
            ("opensuse/leap:15.3", "docker.io", "opensuse/leap", Some("15.3"), false),
            ("index.docker.io/a", "docker.io", "library/a", Some("latest"), false),
            ("test:5000/repo@DIGEST", "test:5000", "repo", None, true),
            ("ghcr.io/acme/app:1@DIGEST", "ghcr.io", "acme/app", Some("1"), true),
        ] {
            let expected = pinned.then(|| digest.clone());
            let found = read(&text.replace("DIGEST", &digest));
            assert_eq!(found, (registry.to_owned(), repository.to_owned(), tag.map(str::to_owned), expected), "{text}");
        }
    }

    #[test]
    fn files_and_builtins_have_no_digest() {
        for (text, source) in [
            ("file:///srv/app.wasm", ImageSource::File),
            ("FILE:///srv/app.wasm", ImageSource::File),
            ("file:///srv/app@sha256:00.wasm", ImageSource::File),
            ("wasmcloud+builtin://http-client", ImageSource::Builtin),
        ] {
            let image: ImageReference = text.parse().unwrap();
            assert_eq!((image.source(), image.digest()), (&source, None), "{text}");
        }
    }

    #[test]
    fn a_provider_s_reference_has_lost_its_scheme() {
        let digest = format!("sha256:{}", "f".repeat(64));
        for (text, source) in [
            ("/srv/provider.par", ImageSource::File),
            (&format!("/ghcr.io/acme/app@{digest}"), ImageSource::File),
            ("http-server", ImageSource::Builtin),
            ("wasmcloud+builtin://http-server", ImageSource::Builtin),
        ] {
            let image = ImageReference::of_provider(text).unwrap();
            assert_eq!((image.source(), image.digest(), image.as_str()), (&source, None, text));
            // A component's reference is as it was given: these would be images.
            assert_ne!(text.parse::<ImageReference>().ok().map(|image| image.source), Some(ImageSource::File));
        }
        let pinned = ImageReference::of_provider(&format!("ghcr.io/acme/app@{digest}")).unwrap();
        assert_eq!(pinned.digest(), Some(digest.as_str()));
        for text in ["", "/srv/a b", &format!("/{}", "a".repeat(LONGEST))] {
            assert!(ImageReference::of_provider(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_hosts_could_read_differently_is_refused() {
        let upper = format!("ghcr.io/a/b@sha256:{}", "F".repeat(64));
        let md5 = format!("ghcr.io/a/b@md5:{}", "f".repeat(32));
        let twice = format!("ghcr.io/a/b@sha256:{0}@sha256:{0}", "f".repeat(64));
        for text in [
            "",
            " file:///x",
            "fi\tle:///x",
            "file:/x",
            "OCI://ghcr.io/a/b",
            "ghcr.io/a b",
            "ghcr.io//b",
            "ghcr.io/A/b",
            "ghcr.io/a/b:",
            "ghcr.io/a/b:-t",
            "/a/b",
            "ghcr.io:x/a/b",
            "ghcr.io/../b",
            "ghcr.io/a/b@",
            "ghcr.io/a/b@sha256:ff",
            "ghcr.io/größe",
            &upper,
            &md5,
            &twice,
            &"a".repeat(1025),
        ] {
            assert!(text.parse::<ImageReference>().is_err(), "{text}");
        }
    }
}
