//! Listening, routes, and the end.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::guard::{Guard, guard};
use crate::library::Library;
use crate::{ViewError, api, assets};

/// How often the stop flag is looked at.
const STOP_EVERY: Duration = Duration::from_millis(50);
/// How long answers under way may take once it is to end.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// What to serve, where, and to whom.
#[derive(Clone, Debug)]
pub struct ViewOptions {
    /// The study's folder.
    pub study: PathBuf,
    /// Where to listen; port 0 means any free one. Not on loopback, a token must be given.
    pub listen: SocketAddr,
    /// What everyone who looks must know: at least 16 letters, digits, `-` or `_`. They open `http://ADDRESS/?token=TOKEN`.
    pub token: Option<String>,
    /// Ends the server when set, as SIGINT and SIGTERM do.
    pub stop: Arc<AtomicBool>,
}

/// Serves the page until it is stopped. `on_ready` is told the address once it can be opened.
///
/// Runs its own runtime on this thread; disk reads are on threads of their own.
///
/// # Errors
/// The study cannot be opened, the address cannot be listened on, or it is not loopback and there is no token.
pub fn serve(options: ViewOptions, on_ready: impl FnOnce(SocketAddr)) -> Result<(), ViewError> {
    if options.token.is_none() && !options.listen.ip().is_loopback() {
        return Err(ViewError::NotLoopback(options.listen));
    }
    if options.token.as_deref().is_some_and(|t| !Guard::is_sound(t)) {
        return Err(ViewError::Token);
    }
    let library = Arc::new(Library::open(&options.study)?);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ViewError::Serve)?;
    let served = runtime.block_on(listen(options, library, on_ready));
    runtime.shutdown_timeout(LAST_ANSWERS);
    served
}

async fn listen(
    options: ViewOptions,
    library: Arc<Library>,
    on_ready: impl FnOnce(SocketAddr),
) -> Result<(), ViewError> {
    let address = options.listen;
    let listener =
        TcpListener::bind(address).await.map_err(|source| ViewError::Listen { address, source })?;
    let address = listener.local_addr().map_err(ViewError::Serve)?;
    let stop = stopped(options.stop)?;
    let app = router(library, Guard::new(options.token, address.port()));
    let (ended, end) = tokio::sync::watch::channel(false);
    let wait = |mut end: tokio::sync::watch::Receiver<bool>| async move {
        // An error means that the sender is gone, which also is the end.
        let _ = end.wait_for(|ended| *ended).await;
    };
    let served = axum::serve(listener, app).with_graceful_shutdown(wait(end.clone()));
    on_ready(address);
    tokio::spawn(async move {
        stop.await;
        let _ = ended.send(true);
    });
    tokio::select! {
        result = async { served.await } => result.map_err(ViewError::Serve),
        () = async { wait(end).await; tokio::time::sleep(LAST_ANSWERS).await } => Ok(()),
    }
}

/// Resolves on SIGINT, SIGTERM or the flag.
fn stopped(flag: Arc<AtomicBool>) -> Result<impl Future<Output = ()> + Send + 'static, ViewError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ViewError::Serve)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ViewError::Serve)?;
    Ok(async move {
        let flagged = async {
            while !flag.load(Ordering::Relaxed) {
                tokio::time::sleep(STOP_EVERY).await;
            }
        };
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, () = flagged => {} }
    })
}

fn router(library: Arc<Library>, admission: Guard) -> Router {
    let api = Router::new()
        .route("/study", get(api::study))
        .route("/study/version", get(api::version))
        .route("/matrix", get(api::matrix))
        .route("/runs", get(api::runs))
        .route("/run/{id}", get(api::run))
        .route("/run/{id}/timeline", get(api::timeline))
        .route("/run/{id}/frames", get(api::frames))
        .fallback(api::nothing)
        .with_state(library);
    Router::new()
        .route("/", get(assets::index))
        .route("/{*path}", get(assets::asset))
        .nest("/api", api)
        .layer(from_fn_with_state(Arc::new(admission), guard))
}
