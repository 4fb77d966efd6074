//! What a user can type of backups.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
For instance:
  mainstay backup /mnt/backup/before-the-change
  mainstay backup ls /mnt/backup
  mainstay backup verify /mnt/backup/mainstay-backup-20260301T093000Z
  mainstay restore /mnt/backup/mainstay-backup-20260301T093000Z")]
pub(crate) struct Backup {
    #[command(subcommand)]
    pub(crate) deed: Option<BackupDeed>,
    /// The directory, which is made; by default `mainstay-backup-TIME` in this one.
    pub(crate) directory: Option<PathBuf>,
}

/// What else to do with backups.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupDeed {
    /// Read all of a backup, and say whether it is what it was when it was made.
    Verify {
        /// The directory that `backup` made.
        backup: PathBuf,
    },
    /// List the backups in a directory.
    Ls {
        /// The directory; by default the one into which the backups of this node go.
        directory: Option<PathBuf>,
    },
}

/// A backup that is due.
#[derive(Debug, Args)]
pub(crate) struct BackupProcess {
    /// The directory into which it goes.
    #[arg(long)]
    pub(crate) to: PathBuf,
    /// How many are kept.
    #[arg(long)]
    pub(crate) keep: u32,
}
