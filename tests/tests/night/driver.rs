//! A headless Chromium, driven by the few requests of WebDriver that this test needs:
//! <https://www.w3.org/TR/webdriver2/>.

use reqwest::{Client, Method};
use serde_json::{Value, json};
use servers::{Chromium, INSTALL_BROWSER};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};
use tests::{File, eventually};

/// Nothing but the dashboard is asked for anything.
const ARGUMENTS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
];
/// The name under which WebDriver has the reference of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser that does not answer for this long hangs: the test then says so, instead of hanging too.
const ANSWER: Duration = Duration::from_secs(60);

/// A browser with one page, ended when dropped.
pub(crate) struct Browser {
    driver: Child,
    /// Kept open: it may say more.
    _said: BufReader<ChildStdout>,
    client: Client,
    /// The session's address.
    session: String,
    /// The dashboard's address.
    site: String,
    _profile: File,
}

impl Browser {
    /// Opens the dashboard at this address.
    pub(crate) async fn open(site: &str) -> Self {
        let Some(Chromium { browser, driver }) = Chromium::find() else {
            panic!("this test drives a browser: install one (`{INSTALL_BROWSER}`)")
        };
        let profile = File::create();
        let driver = Command::new(driver).arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut driver = driver.expect("ChromeDriver runs");
        let mut said = BufReader::new(driver.stdout.take().expect("stdout is piped"));
        let port = port_of(&mut said);
        let profile_argument = format!("--user-data-dir={}", profile.folder.display());
        let arguments: Vec<&str> = ARGUMENTS.into_iter().chain([profile_argument.as_str()]).collect();
        let options = json!({ "args": arguments, "binary": browser });
        let wanted = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let mut this = Self {
            driver,
            _said: said,
            client: Client::builder().timeout(ANSWER).build().expect("a client"),
            session: format!("http://127.0.0.1:{port}/session"),
            site: site.into(),
            _profile: profile,
        };
        let capabilities = json!({ "capabilities": { "alwaysMatch": wanted } });
        let made = this.order(Method::POST, "", &capabilities).await.expect("Chromium starts");
        this.session = format!("{}/{}", this.session, made["sessionId"].as_str().expect("a session has an id"));
        this.go("/").await;
        this
    }

    /// What the browser answers, or why it does not do it.
    async fn order(&self, method: Method, what: &str, body: &Value) -> Result<Value, String> {
        let request = self.client.request(method.clone(), format!("{}{what}", self.session));
        let request = if method == Method::POST { request.json(body) } else { request };
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let is_well = answer.status().is_success();
        let mut answer: Value = answer.json().await.map_err(|error| error.to_string())?;
        let value = answer["value"].take();
        if is_well { Ok(value) } else { Err(format!("{}: {}", value["error"], value["message"])) }
    }

    /// Goes to a page by its address.
    pub(crate) async fn go(&self, path: &str) {
        let url = json!({ "url": format!("{}{path}", self.site) });
        self.order(Method::POST, "/url", &url).await.expect("the page opens");
    }

    /// The elements of an XPath.
    async fn find(&self, path: &str) -> Result<Vec<String>, String> {
        let found = self.order(Method::POST, "/elements", &json!({ "using": "xpath", "value": path })).await?;
        let id = |element: &Value| element[ELEMENT].as_str().map(|id| format!("/element/{id}"));
        Ok(found.as_array().into_iter().flatten().filter_map(id).collect())
    }

    /// Does something with the first element of an XPath. The page may change under it: then it is found again.
    async fn with(&self, path: &str, what: &str, body: &Value) -> Value {
        eventually(&format!("an element {path} that takes {what}, on {}", self.shown().await), || async {
            let element = self.find(path).await.ok()?.into_iter().next()?;
            let method = if what == "/text" { Method::GET } else { Method::POST };
            self.order(method, &format!("{element}{what}"), body).await.ok()
        })
        .await
    }

    /// Clicks on it.
    pub(crate) async fn click(&self, path: &str) {
        self.with(path, "/click", &json!({})).await;
    }

    /// Types into a field, in place of what is there.
    pub(crate) async fn fill(&self, path: &str, text: &str) {
        self.with(path, "/clear", &json!({})).await;
        self.with(path, "/value", &json!({ "text": text })).await;
    }

    /// The text of the first element of an XPath, as a person sees it.
    pub(crate) async fn text(&self, path: &str) -> String {
        self.with(path, "/text", &json!({})).await.as_str().unwrap_or_default().to_owned()
    }

    /// How many elements there are.
    pub(crate) async fn count(&self, path: &str) -> usize {
        self.find(path).await.expect("the page can be searched").len()
    }

    /// Waits until a text stands on the page.
    pub(crate) async fn sees(&self, text: &str) {
        eventually(&format!("`{text}` on the page"), || async { self.shown().await.contains(text).then_some(()) })
            .await;
    }

    /// The address and the whole text of the page.
    async fn shown(&self) -> String {
        let script = "return location.pathname + location.search + '\\n' + document.body.innerText";
        self.script(script).await.unwrap_or_default().as_str().unwrap_or_default().to_owned()
    }

    /// What a script returns.
    pub(crate) async fn script(&self, script: &str) -> Result<Value, String> {
        self.order(Method::POST, "/execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// Shows pages as on a screen of this width; Chromium's windows cannot be that narrow.
    pub(crate) async fn width(&self, pixels: u32) {
        let size = json!({ "width": pixels, "height": 1000, "deviceScaleFactor": 1, "mobile": false });
        let order = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": size });
        self.order(Method::POST, "/goog/cdp/execute", &order).await.expect("a screen has any size");
    }

    /// What the browser itself complains about, such as a script that the page's policy forbids.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.order(Method::POST, "/se/log", &json!({ "type": "browser" })).await.expect("there is a log");
        let text = |entry: &Value| entry["message"].as_str().map(str::to_owned);
        log.as_array().into_iter().flatten().filter_map(text).collect()
    }
}

/// Where ChromeDriver listens: "ChromeDriver was started successfully on port 43211."
fn port_of(said: &mut impl BufRead) -> u16 {
    let mut all = String::new();
    while said.read_line(&mut all).is_ok_and(|bytes| bytes > 0) {
        let port =
            all.split("successfully on port ").nth(1).and_then(|rest| rest.trim().trim_end_matches('.').parse().ok());
        if let Some(port) = port {
            return port;
        }
    }
    panic!("ChromeDriver was expected to start: {all}")
}

impl Drop for Browser {
    fn drop(&mut self) {
        // the browser ends with its session, and not with its driver
        let place = self.session.strip_prefix("http://").and_then(|rest| rest.split_once('/'));
        if let Some((address, path)) = place
            && let Ok(mut stream) = TcpStream::connect(address)
        {
            let request = format!("DELETE /{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read(&mut [0; 64]).map(drop));
        }
        let _ = self.driver.kill(); // it may have ended by itself
        let _ = self.driver.wait();
    }
}
