//! Every refusal as a [`Problem`] with the status that belongs to its code.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use mainstay_api::wire::{Problem, ProblemCode};

/// A refused request.
#[derive(Debug)]
pub(super) struct Refused(Problem);

impl Refused {
    pub(super) fn new(code: ProblemCode, message: impl Into<String>) -> Self {
        Self(Problem::new(code, message))
    }

    #[cfg(test)]
    pub(super) fn problem(&self) -> &Problem {
        &self.0
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.status());
        let status = status.expect("each code has a legal status");
        (status, Json(self.0)).into_response()
    }
}
