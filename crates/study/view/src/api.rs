//! The JSON that the page, or a script, asks for. Formats: `docs/view.md`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::indicators::Cut;
use crate::library::Library;
use crate::overview::{self, MatrixJson, StudyJson};

type Answer = Result<Response, ApiError>;

/// Pixels for which samples are given when the page does not say how many it has.
const WIDTH: usize = 1_000;
/// Widest picture: five large screens side by side.
const MAX_WIDTH: usize = 20_000;

/// Reads from the disk and writes JSON on a thread of its own, so that one slow answer does not delay the others.
async fn answer(
    library: Arc<Library>,
    make: impl FnOnce(&Library) -> Result<Vec<u8>, ApiError> + Send + 'static,
) -> Answer {
    let made = tokio::task::spawn_blocking(move || make(&library)).await;
    let body = made.map_err(|error| internal(&error))??;
    Ok(([(CONTENT_TYPE, "application/json")], Body::from(body)).into_response())
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(|error| internal(&error))
}

fn internal(error: &dyn std::error::Error) -> ApiError {
    tracing::error!("{error}");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    query.map(|q| q.0).map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error.body_text()))
}

/// `/api/study`
pub(crate) async fn study(State(library): State<Arc<Library>>) -> Answer {
    answer(library, |l| {
        let version = l.version();
        json(&StudyJson::of(&l.study(), version)?)
    })
    .await
}

#[derive(Serialize)]
struct Version {
    version: String,
}

/// `/api/study/version`: changes when there is something new to ask for.
pub(crate) async fn version(State(library): State<Arc<Library>>) -> Answer {
    answer(library, |l| json(&Version { version: l.version() })).await
}

#[derive(Deserialize)]
pub(crate) struct MatrixQuery {
    response: String,
}

/// `/api/matrix?response=NAME`
pub(crate) async fn matrix(
    State(library): State<Arc<Library>>,
    asked: Result<Query<MatrixQuery>, QueryRejection>,
) -> Answer {
    let asked = query(asked)?;
    answer(library, move |l| json(&MatrixJson::of(&l.study(), &asked.response)?)).await
}

/// `/api/runs`
pub(crate) async fn runs(State(library): State<Arc<Library>>) -> Answer {
    answer(library, |l| json(&overview::runs(&l.study())?)).await
}

/// `/api/run/ID`: its `run.toml` as JSON.
pub(crate) async fn run(State(library): State<Arc<Library>>, Path(id): Path<String>) -> Answer {
    answer(library, move |l| json(&l.study().run(&id)?.1)).await
}

#[derive(Deserialize)]
pub(crate) struct CutQuery {
    from: Option<i64>,
    to: Option<i64>,
    width: Option<usize>,
    /// Ids, separated by commas.
    series: Option<String>,
}

/// `/api/run/ID/timeline?width=&from=&to=&series=`
pub(crate) async fn timeline(
    State(library): State<Arc<Library>>,
    Path(id): Path<String>,
    asked: Result<Query<CutQuery>, QueryRejection>,
) -> Answer {
    let asked = query(asked)?;
    answer(library, move |l| {
        let indicators = l.indicators(&id)?;
        json(&indicators.cut(&Cut {
            from: asked.from,
            to: asked.to,
            width: asked.width.unwrap_or(WIDTH).clamp(1, MAX_WIDTH),
            wanted: asked.series.as_deref().map(|s| s.split(',').collect()),
        }))
    })
    .await
}

/// `/api/run/ID/frames?from=&to=&width=`
pub(crate) async fn frames(
    State(library): State<Arc<Library>>,
    Path(id): Path<String>,
    asked: Result<Query<CutQuery>, QueryRejection>,
) -> Answer {
    let asked = query(asked)?;
    answer(library, move |l| {
        let (from, to) = (asked.from.unwrap_or(0), asked.to.unwrap_or(i64::MAX));
        json(&l.waterfall(&id)?.cut(from, to, asked.width.unwrap_or(WIDTH)))
    })
    .await
}

/// Anything else below `/api`.
pub(crate) async fn nothing(uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no '{}' here", uri.path()))
}
