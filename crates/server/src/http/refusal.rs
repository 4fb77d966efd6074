//! Every refusal as a [`Problem`] with the status that belongs to it.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use mainstay_api::wire::{Problem, ProblemCode};

/// A refused request.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    problem: Problem,
}

impl Refused {
    pub(super) fn new(status: StatusCode, code: ProblemCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status,
            problem: Problem {
                code,
                message,
                remedy: None,
            },
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ProblemCode::BadRequest, message)
    }

    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, ProblemCode::Unauthorized, message)
    }

    pub(super) fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.problem.remedy = Some(remedy.into());
        self
    }

    #[cfg(test)]
    pub(super) fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        let status = match problem.code {
            ProblemCode::BadRequest => StatusCode::BAD_REQUEST,
            ProblemCode::Unauthorized => StatusCode::UNAUTHORIZED,
            ProblemCode::NotFound => StatusCode::NOT_FOUND,
            ProblemCode::Conflict => StatusCode::CONFLICT,
            ProblemCode::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            ProblemCode::Storage => StatusCode::INSUFFICIENT_STORAGE,
            ProblemCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, problem }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(self.problem)).into_response()
    }
}
