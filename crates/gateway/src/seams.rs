//! The seams as a hidden option writes them, so that a bench can switch off in a real process what
//! a claim rests on: `retries=off,retry-routes=keep`.

use std::str::FromStr;

use crate::{
    Beats, Hedging, Ids, LeavingSeam, Limiting, ListenSockets, Patience, Retries, RetryRoutes,
    Seams, Verdicts,
};

/// A word that names no seam.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is no seam of the gateway; expected {expected}", expected = EXPECTED)]
pub struct SeamError {
    word: String,
}

const EXPECTED: &str = "retries=off, retry-routes=keep, hedging=off, patience=endless, limiting=off, \
                        verdicts=ignored, request-ids=off, listen-sockets=own, beats=off or leaving=off, several with commas";

impl FromStr for Seams {
    type Err = SeamError;

    fn from_str(text: &str) -> Result<Self, SeamError> {
        let mut seams = Self::default();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            match word {
                "retries=off" => seams.retries = Retries::Off,
                "retry-routes=keep" => seams.retry_routes = RetryRoutes::Keep,
                "hedging=off" => seams.hedging = Hedging::Off,
                "patience=endless" => seams.patience = Patience::Endless,
                "limiting=off" => seams.limiting = Limiting::Off,
                "verdicts=ignored" => seams.verdicts = Verdicts::Ignored,
                "request-ids=off" => seams.request_ids = Ids::Off,
                "leaving=off" => seams.leaving = LeavingSeam::Off,
                "beats=off" => seams.beats = Beats::Off,
                "listen-sockets=own" => seams.listen_sockets = ListenSockets::Own,
                other => {
                    let word = other.to_owned();
                    return Err(SeamError { word });
                }
            }
        }
        Ok(seams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seams_are_named_with_commas_and_an_unknown_one_is_refused() {
        assert_eq!("".parse(), Ok(Seams::default()));
        let both: Seams = "retries=off,retry-routes=keep".parse().unwrap();
        assert_eq!(
            (both.retries, both.retry_routes),
            (Retries::Off, RetryRoutes::Keep)
        );
        let refused = "retries=of".parse::<Seams>().unwrap_err().to_string();
        assert!(
            refused.contains("retries=of`") && refused.contains("retries=off"),
            "{refused}"
        );
    }
}
