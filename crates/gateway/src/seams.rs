//! The seams as a hidden option writes them, so that a bench can switch off in a real process what
//! a claim rests on: `retries=off,retry-routes=keep`.

use std::str::FromStr;

use mainstay_model::seams::{self, SeamError, Word};

use crate::{
    Beats, Hedging, Ids, LeavingSeam, Limiting, ListenSockets, Patience, Retries, RetryRoutes,
    Seams, Verdicts,
};

impl seams::Seams for Seams {
    const OF: &'static str = "the gateway";
    const WORDS: &'static [Word<Self>] = &[
        ("retries=off", |seams| seams.retries = Retries::Off),
        ("retry-routes=keep", |seams| {
            seams.retry_routes = RetryRoutes::Keep;
        }),
        ("hedging=off", |seams| seams.hedging = Hedging::Off),
        ("patience=endless", |seams| {
            seams.patience = Patience::Endless;
        }),
        ("limiting=off", |seams| seams.limiting = Limiting::Off),
        ("verdicts=ignored", |seams| {
            seams.verdicts = Verdicts::Ignored;
        }),
        ("request-ids=off", |seams| seams.request_ids = Ids::Off),
        ("listen-sockets=own", |seams| {
            seams.listen_sockets = ListenSockets::Own;
        }),
        ("beats=off", |seams| seams.beats = Beats::Off),
        ("leaving=off", |seams| seams.leaving = LeavingSeam::Off),
    ];
}

impl FromStr for Seams {
    type Err = SeamError;

    fn from_str(text: &str) -> Result<Self, SeamError> {
        seams::parse(text)
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
            refused.contains("retries=of`") && refused.contains("leaving=off"),
            "{refused}"
        );
    }
}
