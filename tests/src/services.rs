//! A virtual host for one test, deleted when the test ends; and where the test's servers are.

use transports::RabbitMq;
use uuid::Uuid;

pub(crate) fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests with `cargo xtask test`"))
}

pub(crate) fn unique() -> String {
    format!("t{}", Uuid::new_v4().simple())
}

/// Runs a clean-up to its end, wherever the test ends.
pub(crate) fn finally(clean_up: impl Future<Output = ()> + Send + 'static) {
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime {
            runtime.block_on(clean_up);
        }
    });
    let _ = thread.join(); // what is left behind goes with the test's servers
}

/// Where a broker is: that of the tests, or one's own.
#[derive(Debug, Clone)]
pub struct BrokerAt {
    amqp: String,
    management: String,
}

impl BrokerAt {
    /// The broker of the tests.
    pub fn of_the_tests() -> Self {
        Self { amqp: setting("SAGABUS_TEST_AMQP_URL"), management: setting("SAGABUS_TEST_MANAGEMENT_URL") }
    }
}

impl BrokerAt {
    /// A cluster: any of its nodes will do, and this one manages it.
    pub fn cluster(nodes: &[servers::Broker], manager: &servers::Broker) -> Self {
        let hosts: Vec<String> = nodes.iter().map(servers::Broker::address).collect();
        Self { amqp: format!("amqp://guest:guest@{}", hosts.join(",")), management: manager.management() }
    }
}

impl From<&servers::Broker> for BrokerAt {
    fn from(broker: &servers::Broker) -> Self {
        Self { amqp: broker.amqp(), management: broker.management() }
    }
}

/// A virtual host of RabbitMQ.
#[derive(Debug)]
pub struct Vhost {
    /// Its name, as it is written in URLs.
    pub name: String,
    broker: BrokerAt,
}

impl Vhost {
    /// Creates one.
    ///
    /// # Panics
    /// When the management interface does not let us.
    pub async fn create() -> Self {
        Self::create_named("").await
    }

    /// Creates one whose name ends with this.
    ///
    /// # Panics
    /// When the management interface does not let us.
    pub async fn create_named(end: &str) -> Self {
        Self::create_on(BrokerAt::of_the_tests(), end).await
    }

    /// Creates one on a broker, whose name ends with this.
    ///
    /// # Panics
    /// When the management interface does not let us.
    pub async fn create_on(broker: BrokerAt, end: &str) -> Self {
        let name = format!("{}{}", unique(), end.replace('/', "%2F"));
        let vhost = Self { name, broker };
        let client = reqwest::Client::new();
        // while a cluster forms, its nodes begin anew
        crate::eventually("a virtual host", || async {
            let created = client.put(vhost.api("vhosts", "")).send().await.ok()?;
            created.status().is_success().then_some(())
        })
        .await;
        vhost.permit([".*"; 3]).await;
        vhost
    }

    fn api(&self, what: &str, rest: &str) -> String {
        format!("{}/api/{what}/{}{rest}", self.broker.management, self.name)
    }

    /// Asks somebody else for lists, and for its end: another node of its cluster.
    pub fn ask_at(&mut self, broker: BrokerAt) {
        self.broker = broker;
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("{}/{}", self.broker.amqp, self.name)
    }

    /// The transport on it.
    ///
    /// # Panics
    /// When the address is wrong.
    pub fn transport(&self) -> RabbitMq {
        RabbitMq::new(&self.url()).expect("the address of the test's broker is an AMQP URL")
    }

    /// The address with a new user, who may write to those queues and exchanges only whose names match.
    ///
    /// # Panics
    /// When the management interface does not let us.
    pub async fn url_with_writes(&self, write: &str) -> String {
        let name = self.name.as_str(); // the user is named like the virtual host, and goes with it
        let permissions = serde_json::json!({ "configure": ".*", "write": write, "read": ".*" });
        let user = serde_json::json!({ "password": name, "tags": "" });
        self.put(format!("{}/api/users/{name}", self.broker.management), &user).await;
        self.put(self.api("permissions", &format!("/{name}")), &permissions).await;
        let (scheme, rest) = self.url().split_once("://").map(|(s, r)| (s.to_owned(), r.to_owned())).expect("a URL");
        let (_, place) = rest.split_once('@').expect("the address names a user");
        format!("{scheme}://{name}:{name}@{place}")
    }

    /// Sets a limit: `max-connections`, `max-queues`.
    ///
    /// # Panics
    /// When the management interface does not let us.
    pub async fn limit(&self, what: &str, limit: u32) {
        let value = serde_json::json!({ "value": limit });
        self.put(self.api("vhost-limits", &format!("/{what}")), &value).await;
    }

    /// Sets a policy for the `queues` or `exchanges` whose names match.
    ///
    /// # Panics
    /// When the management interface does not let us.
    pub async fn policy(&self, what: &str, pattern: &str, definition: &serde_json::Value) {
        let policy = serde_json::json!({ "pattern": pattern, "definition": definition, "apply-to": what });
        self.put(self.api("policies", "/test"), &policy).await;
    }

    async fn put(&self, url: String, body: &serde_json::Value) {
        let answer = reqwest::Client::new().put(url).json(body).send().await;
        let status = answer.expect("the management interface answers").status();
        assert!(status.is_success(), "{status} came");
    }

    /// A list from the management interface: `queues`, `exchanges`, `bindings`.
    ///
    /// # Panics
    /// When the management interface does not answer.
    pub async fn list(&self, what: &str) -> Vec<serde_json::Value> {
        // a busy management interface may answer with nothing
        crate::eventually("a list from the management interface", || async {
            reqwest::get(self.api(what, "")).await.ok()?.json().await.ok()
        })
        .await
    }

    /// Has the broker put a copy of each message that is published here on `amq.rabbitmq.trace`.
    ///
    /// # Panics
    /// When the management interface does not let us.
    pub async fn trace(&self) {
        let tracing = serde_json::json!({ "tracing": true });
        let answer = reqwest::Client::new().put(self.api("vhosts", "")).json(&tracing).send().await;
        let status = answer.expect("the management interface answers").status();
        assert!(status.is_success(), "tracing was expected, {status} came");
    }

    /// Deletes a `queues` or `exchanges` of it, with what is in it.
    ///
    /// # Panics
    /// When the management interface does not let us.
    pub async fn remove(&self, what: &str, name: &str) {
        let answer = reqwest::Client::new().delete(self.api(what, &format!("/{name}"))).send().await;
        let status = answer.expect("the management interface answers").status();
        assert!(status.is_success(), "the end of {what}/{name} was expected, {status} came");
    }

    /// What guest may do here from now on: patterns of names to configure, write and read. Channels that are open may
    /// remember what they were allowed.
    ///
    /// # Panics
    /// When the management interface does not let us.
    pub async fn permit(&self, [configure, write, read]: [&str; 3]) {
        let permissions = serde_json::json!({ "configure": configure, "write": write, "read": read });
        self.put(self.api("permissions", "/guest"), &permissions).await;
    }

    /// Deletes the virtual host with everything in it: to its clients the broker is away.
    ///
    /// # Panics
    /// When the management interface does not let us.
    pub async fn delete(&self) {
        let answer = reqwest::Client::new().delete(self.api("vhosts", "")).send().await;
        let status = answer.expect("the management interface answers").status();
        assert!(status.is_success(), "the end of the virtual host was expected, {status} came");
    }

    /// Waits for connections of the virtual host, and closes them all from the broker's side. Returns how many.
    pub async fn close_connections(&self) -> usize {
        let client = reqwest::Client::new();
        crate::eventually("connections to close", || async {
            let answer = client.get(self.api("vhosts", "/connections")).send().await.ok()?;
            let connections: Vec<serde_json::Value> = answer.json().await.ok()?;
            for connection in &connections {
                let url = format!(
                    "{}/api/connections/{}",
                    self.broker.management,
                    connection["name"].as_str()?.replace(' ', "%20").replace('>', "%3E")
                );
                let _ = client.delete(url).send().await; // it may be gone already
            }
            (!connections.is_empty()).then_some(connections.len())
        })
        .await
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        let (vhost, user) = (self.api("vhosts", ""), format!("{}/api/users/{}", self.broker.management, self.name));
        finally(async move {
            let client = reqwest::Client::new();
            let _ = client.delete(vhost).send().await;
            let _ = client.delete(user).send().await; // most have none
        });
    }
}
