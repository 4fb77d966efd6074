//! How a command ends: the exit code and what is said of a failure.

use std::fmt;
use std::process::ExitCode;

use mainstay_api::client;

use crate::output::{self, ReaderGone};

/// The meaning of the exit codes; `mainstay --help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done, and what was asked holds.
    Holds = 0,
    /// It was carried out and what was asked does not hold.
    DoesNotHold = 1,
    /// The arguments or a file are wrong; nothing was changed.
    WrongInput = 2,
    /// The control centre is not there.
    Unreachable = 3,
    /// The control centre refused.
    Refused = 4,
    /// Something else failed.
    Failed = 5,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome as u8)
    }
}

/// A failure whose exit code is not [`Outcome::Failed`], with what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) outcome: Outcome,
    /// What was attempted, on what, and what went wrong.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    pub(crate) fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self {
            outcome,
            message: message.into(),
            remedy: None,
        }
    }

    #[must_use]
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Says on standard error why a command failed, and with which code it ends.
pub(crate) fn report(error: &anyhow::Error) -> Outcome {
    let (outcome, remedy) = classify(error);
    if error.is::<ReaderGone>() {
        return outcome;
    }
    output::warn(format_args!("error: {error:#}"));
    if let Some(remedy) = remedy {
        output::warn(format_args!("  help: {remedy}"));
    }
    if let Some(client::Error::Refused(problem)) = error.downcast_ref() {
        output::warn(format_args!("  more: mainstay explain {}", problem.code));
    }
    outcome
}

fn classify(error: &anyhow::Error) -> (Outcome, Option<String>) {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return (failure.outcome, failure.remedy.clone());
    }
    match error.downcast_ref::<client::Error>() {
        Some(client::Error::Refused(problem)) => (Outcome::Refused, Some(problem.remedy.clone())),
        Some(client::Error::RefusedOtherwise(problem)) => {
            (Outcome::Refused, problem.remedy.clone())
        }
        Some(transient) if transient.is_transient() => {
            let remedy = "start `mainstay dev FILE` here, or name its state directory with --state";
            (Outcome::Unreachable, Some(remedy.to_owned()))
        }
        Some(_) => (
            Outcome::Failed,
            Some("are both sides of the same version?".to_owned()),
        ),
        None => (Outcome::Failed, None),
    }
}
