//! `sagabus dashboard`: what the commands show and do, in a browser.
//!
//! ```text
//! request ─► guard.rs (who, from where, with which token) ─► a page ─► app.rs (all databases) ─► Inspect
//!                                                             └─► html.rs (the frame of a page, tables)
//! browser ◄─ live.rs (server-sent events: something changed) ─ one look at each database for all clients
//! ```
//!
//! A page's parameters are the options of the command that does the same (`params.rs`). An action is planned first:
//! its rows are named before anybody confirms it (`plans.rs`).

mod access;
mod app;
mod assets;
mod conversation;
mod guard;
mod held;
mod home;
mod html;
mod instance;
mod json;
mod live;
mod login;
mod message;
mod operations;
mod outbox;
mod outbox_act;
mod params;
mod plan;
mod plans;
mod processes;
mod sagas;
mod search;
mod sql;
mod timeline;
mod timers;
mod versions;
mod workbench;

pub use workbench::Workbench;

use access::{Access, Way};
use anyhow::{Context, Result, anyhow, bail};
use app::App;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::HeaderName,
    middleware,
    response::Redirect,
    routing::{get, post},
};
use clap::Args;
use jiff::tz::TimeZone;
use saga_core::ErrorCode;
use std::{net::SocketAddr, sync::Arc};
use tokio::net::TcpListener;
use workbench::Bench;

/// The token of operators, and that of people who may only look.
const TOKEN: &str = "SAGABUS_DASHBOARD_TOKEN";
const VIEWER_TOKEN: &str = "SAGABUS_DASHBOARD_VIEWER_TOKEN";
/// A shorter token could be guessed.
const TOKEN_CHARS_MIN: usize = 16;
/// The largest form: a message's body, of which form encoding can make three bytes of one.
const FORM_BYTES_MAX: usize = 3 * json::EDITED_BYTES_MAX + 64 * 1024;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The address to listen on; other than loopback only with a token
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8480")]
    listen: SocketAddr,
    /// The path under which a proxy shows it, such as `/sagabus`
    #[arg(long, value_name = "PATH", default_value = "")]
    path: String,
    /// A further name under which browsers reach it, as behind a proxy; repeat it for several
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// The header in which a proxy names the user. The proxy must remove it from what clients send
    ///
    /// If SAGABUS_DASHBOARD_TOKEN is set, the proxy must also send it: `Authorization: Bearer TOKEN`.
    #[arg(long, value_name = "NAME")]
    user_header: Option<HeaderName>,
    /// With --user-header: who may act; repeat it for several. Without it, everyone whom the proxy names
    #[arg(long, value_name = "USER", requires = "user_header")]
    operator: Vec<String>,
    /// Nobody may act
    #[arg(long)]
    read_only: bool,
}

/// Serves until Ctrl-C or SIGTERM.
///
/// # Errors
/// When it must not listen there, or cannot.
pub(crate) async fn run(urls: &[String], arguments: Arguments, utc: bool, json: bool) -> Result<()> {
    let refused = |error: anyhow::Error| anyhow!(ErrorCode::DashboardOpen.told(error));
    let path = path_of(&arguments.path).map_err(refused)?;
    let access = access_of(&arguments).map_err(refused)?;
    let zone = if utc { TimeZone::UTC } else { TimeZone::system() };
    serve(arguments.listen, App::new(urls, path, zone, access), json).await
}

/// The dashboard of a program that shows it itself: on loopback, for whoever reaches it there.
///
/// ```no_run
/// # async fn shown() -> anyhow::Result<()> {
/// let databases = vec!["sqlite:shop.db".to_owned()];
/// sagabus_operator::Dashboard::new(databases, "127.0.0.1:8480".parse()?).serve().await
/// # }
/// ```
pub struct Dashboard {
    databases: Vec<String>,
    listen: SocketAddr,
    bench: Option<Bench>,
}

impl Dashboard {
    /// Of these databases, `postgres://…` or `sqlite:PATH`.
    pub fn new(databases: Vec<String>, listen: SocketAddr) -> Self {
        Self { databases, listen, bench: None }
    }

    /// With buttons on its first page.
    pub fn workbench(self, workbench: Box<dyn Workbench>) -> Self {
        Self { bench: Some(Bench::new(workbench)), ..self }
    }

    /// Serves until Ctrl-C or SIGTERM; its address stands on stdout.
    ///
    /// # Errors
    /// When the address is not loopback, or cannot be listened on.
    pub async fn serve(self) -> Result<()> {
        if !self.listen.ip().is_loopback() {
            bail!("{} is not loopback, so everyone could come in", self.listen);
        }
        let access = Access::new(Way::Local { name: crate::commands::who() }, Some(Vec::new()), false);
        let mut app = App::new(&self.databases, String::new(), TimeZone::system(), access);
        app.bench = self.bench;
        serve(self.listen, app, false).await
    }
}

async fn serve(listen: SocketAddr, app: App, json: bool) -> Result<()> {
    let listener = TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    let app = Arc::new(app);
    let _looks = live::look_again_and_again(app.clone());
    let (url, access) = (format!("http://{address}{}/", app.path), app.access.told());
    if json {
        println!("{}", serde_json::json!({ "url": url, "access": access }));
    } else {
        println!("{url} ({access})");
    }
    let server = axum::serve(listener, router(app));
    tokio::select! {
        served = server => served?,
        stopped = stop() => stopped?, // streams would never end by themselves
    }
    Ok(())
}

async fn stop() -> Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => {}
            interrupted = tokio::signal::ctrl_c() => interrupted?,
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await?;
    Ok(())
}

/// All pages, behind the guard.
fn router(app: Arc<App>) -> Router {
    let pages = [
        ("/", get(home::show).post(workbench::press)),
        ("/sagas", get(sagas::show)),
        ("/sagas/{saga}/{id}", get(instance::show).post(instance::act)),
        ("/held", get(held::show).post(held::plan)),
        ("/held/{id}", get(message::show).post(message::act)),
        ("/plans/{id}", get(plan::show).post(plan::act)),
        ("/outbox", get(outbox::list).post(outbox_act::plan)),
        ("/outbox/{id}", get(outbox::show).post(outbox_act::act)),
        ("/timers", get(timers::show)),
        ("/conversations/{id}", get(conversation::show)),
        ("/processes", get(processes::show)),
        ("/versions", get(versions::show)),
        ("/operations", get(operations::show)),
        ("/search", get(search::show)),
        ("/live", get(live::events)),
        ("/login", get(login::show).post(login::enter)),
        ("/logout", post(login::leave)),
        ("/assets/style.css", get(assets::style)),
        ("/assets/live.js", get(assets::script)),
    ];
    let mut router = Router::new();
    for (path, page) in pages {
        router = router.route(&app.url(path), page);
    }
    if !app.path.is_empty() {
        let home = app.url("/");
        router = router.route(&app.path, get(async move || Redirect::permanent(&home)));
    }
    router
        .fallback(html::no_such_page)
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .with_state(app)
}

/// A path that begins with a slash and ends without one.
fn path_of(text: &str) -> Result<String> {
    let path = text.trim_end_matches('/');
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/-_.~".contains(c);
    if !path.is_empty() && (!path.starts_with('/') || path.starts_with("//") || !path.chars().all(is_plain)) {
        bail!("--path {text}: a path such as /sagabus was expected");
    }
    Ok(path.into())
}

/// Who may come in.
fn access_of(arguments: &Arguments) -> Result<Access> {
    let secret = |name: &str| -> Result<Option<String>> {
        let Some(token) = std::env::var(name).ok().filter(|token| !token.is_empty()) else { return Ok(None) };
        if token.chars().count() < TOKEN_CHARS_MIN {
            bail!("{name} is shorter than {TOKEN_CHARS_MIN} characters: it could be guessed");
        }
        Ok(Some(token))
    };
    let (operator, viewer) = (secret(TOKEN)?, secret(VIEWER_TOKEN)?);
    if !arguments.listen.ip().is_loopback() && operator.is_none() && viewer.is_none() {
        bail!("{} is not loopback, so everyone could come in: set {TOKEN} to a secret", arguments.listen);
    }
    if operator.is_some() && operator == viewer {
        bail!("{TOKEN} and {VIEWER_TOKEN} are the same");
    }
    let way = match &arguments.user_header {
        Some(_) if viewer.is_some() => bail!("with --user-header, {VIEWER_TOKEN} has no use: see --operator"),
        Some(header) => Way::Header { header: header.clone(), secret: operator, operators: arguments.operator.clone() },
        None if operator.is_some() || viewer.is_some() => Way::Tokens { operator, viewer },
        None => Way::Local { name: crate::commands::who() },
    };
    let hosts = arguments.listen.ip().is_loopback().then(|| arguments.host.clone());
    Ok(Access::new(way, hosts, arguments.read_only))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_plain_and_has_no_slash_at_its_end() {
        for (text, path) in [("", ""), ("/", ""), ("/ops/", "/ops"), ("/a/b", "/a/b")] {
            assert_eq!(path_of(text).unwrap(), path);
        }
        for wrong in ["ops", "//evil.example", "/a b", "/{id}", "/a\\"] {
            assert!(path_of(wrong).is_err(), "{wrong}");
        }
    }
}
