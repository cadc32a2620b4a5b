//! `completion`: what a shell needs in order to complete our commands.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Arguments;
use super::failure::Failure;
use super::screen::Screen;

/// Print the completion script of a shell.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  portcullis-broker completion bash > /etc/bash_completion.d/portcullis-broker")]
pub(crate) struct Completion {
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub(crate) fn execute(self, screen: &mut Screen) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "portcullis-broker", &mut script);
        screen.line(String::from_utf8_lossy(&script).trim_end())
    }
}
