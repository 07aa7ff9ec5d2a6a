//! `sagabus dashboard` as browsers meet it: the program itself, over HTTP.

mod acts;
mod bulk;
mod doors;
mod pages;
mod sql;

use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect::Policy};
use std::{
    io::Read,
    process::{Command, Stdio},
};
use tests::{
    tables::{Held, Tables},
    tool::{self, Served},
};

/// The dashboard's process, ended when dropped.
struct Dashboard {
    _process: Served,
    /// Its address and path, without a slash at the end.
    url: String,
    client: Client,
    /// Headers of every request.
    headers: Vec<(&'static str, String)>,
}

/// A page as it came.
struct Page {
    status: StatusCode,
    location: String,
    cookie: String,
    policy: String,
    text: String,
}

fn command(urls: &[&str], arguments: &[&str]) -> Command {
    tool::command(urls, &[&["dashboard"], arguments].concat())
}

impl Dashboard {
    /// On loopback, for whoever comes.
    fn start(tables: &Tables) -> Self {
        Self::of(command(&[&tables.url], &["--listen", "127.0.0.1:0"]))
    }

    fn of(command: Command) -> Self {
        let process = Served::by(command);
        let client = Client::builder().redirect(Policy::none()).build().expect("a client needs nothing");
        Self { url: process.url.clone(), _process: process, client, headers: Vec::new() }
    }

    /// The same for somebody who sends a header.
    fn with(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.into()));
        self
    }

    async fn send(&self, request: RequestBuilder) -> Page {
        let request = self.headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        Page::of(request.send().await.expect("the dashboard answers")).await
    }

    async fn get(&self, path: &str) -> Page {
        self.send(self.client.get(format!("{}{path}", self.url))).await
    }

    /// The text of a page that is there.
    async fn page(&self, path: &str) -> String {
        let page = self.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.text);
        page.text
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        self.send(self.client.post(format!("{}{path}", self.url)).form(fields)).await
    }

    /// Sends a form as the page `from` has it: with its token.
    async fn submit(&self, from: &str, path: &str, fields: &[(&str, &str)]) -> Page {
        let page = self.page(from).await;
        let csrf = field(&page, "csrf").unwrap_or_else(|| panic!("{from} has a form: {page}"));
        let fields: Vec<_> = fields.iter().copied().chain([("csrf", csrf)]).collect();
        self.post(path, &fields).await
    }
}

impl Page {
    async fn of(response: Response) -> Self {
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (location, cookie) = (header("location"), header("set-cookie"));
        let (policy, status) = (header("content-security-policy"), response.status());
        Self { status, location, cookie, policy, text: response.text().await.expect("a page is text") }
    }

    /// The path that it leads to.
    fn path(&self) -> &str {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}", self.text);
        &self.location
    }
}

/// The value of a hidden field.
fn field<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    page.split(&format!("name=\"{name}\" value=\"")).nth(1)?.split('"').next()
}

/// One failed message of instance `order 7`, and what waits behind it.
async fn paused(tables: &Tables) {
    tables.instance("7", "AwaitingShipment", Some("poison")).await;
    tables.hold(&Held { message_id: "poison", reason: "undecodable", error: "no label", ..Held::default() }).await;
    tables.hold(&Held { message_id: "right", reason: "paused", attempts: 0, error: "", ..Held::default() }).await;
}

/// Both databases.
async fn both() -> [Tables; 2] {
    [Tables::postgres().await, Tables::sqlite().await]
}

/// Runs the program to its end; exit code and stderr.
fn ended(mut command: Command) -> (i32, String) {
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program runs");
    let mut err = String::new();
    process.stderr.take().expect("stderr is piped").read_to_string(&mut err).expect("it is text");
    (process.wait().expect("it ends").code().unwrap_or(-1), err)
}
