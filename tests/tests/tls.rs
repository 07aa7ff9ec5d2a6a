//! TLS to a RabbitMQ and a PostgreSQL of the test's own: both sides show certificates, and both are checked.

use saga_core::{StartError, Store, Transport, TransportErrorKind};
use servers::{Broker, INSTALL, Programs, Server, free_port, is_root, run};
use sqlx::{Connection, Executor, PgConnection};
use std::{fmt::Display, path::Path, sync::LazyLock};
use tests::{
    BrokerAt, Vhost,
    certificates::{Authority, Certificate},
    eventually,
    house::{House, unchanged},
    link::{attach, close, delivery, limits, number, outgoing, report, to, topology},
};
use tokio::task::block_in_place;
use transports::RabbitMq;

/// Servers with certificates for `localhost`, which want certificates of their clients.
struct Servers {
    broker: Broker,
    /// The port of the broker's TLS.
    amqps: u16,
    database: Server,
    /// Signs for both sides.
    authority: Authority,
    /// Nobody trusts it.
    stranger: Authority,
}

/// All tests of this file use them; they end with the process.
static SERVERS: LazyLock<Servers> = LazyLock::new(|| {
    let programs = Programs::find().unwrap_or_else(|| panic!("this test needs RabbitMQ and PostgreSQL: `{INSTALL}`"));
    let (authority, stranger) = (Authority::create("authority"), Authority::create("stranger"));
    let shown = authority.sign("localhost", &["localhost"]);
    let amqps = free_port().expect("a port is free");
    let mut broker = Broker::prepare(&programs, "").expect("the folder for temporary files can be written");
    let (ca, certificate, key) = (shown.authority.display(), shown.certificate.display(), shown.key.display());
    let conf = format!(
        "listeners.ssl.1 = 127.0.0.1:{amqps}\nssl_options.cacertfile = {ca}\nssl_options.certfile = {certificate}\n\
         ssl_options.keyfile = {key}\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n\
         auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\nssl_cert_login_from = common_name\n"
    );
    broker.configure(&conf).expect("its file can be written");
    broker.launch().expect("the broker's program runs");
    let database = Server::prepare(&programs, 100).expect("a database server is made");
    // `app` shows a certificate instead of a password; nobody comes without TLS
    let who = "hostssl all app 127.0.0.1/32 cert\nhostssl all postgres 127.0.0.1/32 trust\n";
    let files = [("ca.pem", &shown.authority), ("server.pem", &shown.certificate), ("server.key", &shown.key)];
    for (name, file) in files {
        keep(&database.data().join(name), file);
    }
    let conf = "ssl = on\nssl_ca_file = 'ca.pem'\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n";
    database.configure(conf, who).expect("its files can be written");
    database.start().expect("the database server starts");
    broker.managed().expect("the broker starts");
    Servers { broker, amqps, database, authority, stranger }
});

/// Copies a file to where PostgreSQL accepts it as a key: nobody else may read it.
fn keep(to: &Path, file: &Path) {
    let owner = if is_root() { "-o postgres -g postgres" } else { "" };
    run(&format!("install -m 600 {owner} '{}' '{}'", file.display(), to.display())).expect("the key is copied");
}

fn servers() -> &'static Servers {
    block_in_place(|| &*SERVERS)
}

/// Options of a URL.
fn options(pairs: &[(&str, &Path)]) -> String {
    pairs.iter().map(|(name, file)| format!("{name}={}", file.display())).collect::<Vec<_>>().join("&")
}

impl Servers {
    async fn vhost(&self) -> Vhost {
        Vhost::create_on(BrokerAt::from(&self.broker), "").await
    }

    /// The broker by a host name.
    fn broker(&self, vhost: &Vhost, host: &str, options: &str) -> String {
        format!("amqps://guest:guest@{host}:{}/{}?{options}", self.amqps, vhost.name)
    }

    /// The database by a host name.
    fn database(&self, who: &str, host: &str, options: &str) -> String {
        let address = self.database.address();
        let port = address.rsplit(':').next().expect("an address has a port");
        format!("postgres://{who}@{host}:{port}/postgres?{options}")
    }
}

/// What the broker's URL says when we show a certificate.
fn showing(ours: &Certificate) -> String {
    options(&[("cacertfile", &ours.authority), ("certfile", &ours.certificate), ("keyfile", &ours.key)])
}

/// The same for the database.
fn showing_database(ours: &Certificate) -> String {
    let files = options(&[("sslrootcert", &ours.authority), ("sslcert", &ours.certificate), ("sslkey", &ours.key)]);
    format!("sslmode=verify-full&{files}")
}

fn contains(said: &impl Display, expected: &[&str]) {
    let said = said.to_string();
    for text in expected {
        assert!(said.contains(text), "`{text}` was expected in: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t_025_over_tls_work_is_done_and_both_sides_show_certificates() {
    let servers = servers();
    let vhost = servers.vhost().await;
    let ours = servers.authority.sign("app", &[]);
    let mut admin = PgConnection::connect(&servers.database("postgres", "localhost", "sslmode=require")).await.unwrap();
    admin.execute("CREATE ROLE app SUPERUSER LOGIN").await.unwrap();
    let mut stores = Vec::new();
    for name in ["journeys", "worker", "listener"] {
        admin.execute(&*format!("CREATE DATABASE {name}")).await.unwrap();
        let url = servers.database("app", "localhost", &showing_database(&ours));
        let url = url.replace("/postgres?", &format!("/{name}?"));
        stores.push(outbox::Postgres::with_connections(&url, 4).expect("the address is a PostgreSQL URL"));
    }
    let stores: [outbox::Postgres; 3] = stores.try_into().expect("there are three");
    let transport = RabbitMq::new(&servers.broker(&vhost, "localhost", &showing(&ours))).expect("the URL is right");
    let house = House::start(transport, stores, unchanged).await;
    house.ask(1, "").await;
    eventually("the effect", || async { (house.work.runs() == 1).then_some(()) }).await;
    eventually("the event", || async { (house.heard.heard() == [1]).then_some(()) }).await;
    house.quiet().await;
    let without: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'app' AND NOT ssl",
    )
    .fetch_one(&mut admin)
    .await
    .unwrap();
    assert_eq!(without, 0, "each connection is encrypted");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t_025_the_brokers_certificate_is_checked_and_ours_too() {
    let servers = servers();
    let vhost = servers.vhost().await;
    let (ours, strangers) = (servers.authority.sign("client", &[]), servers.stranger.sign("client", &[]));
    let refusal = async |url: String| {
        let transport = RabbitMq::new(&url).expect("the URL is right");
        let error = transport.attach(topology("ordering", &[]), limits()).await.map(drop).expect_err("it is refused");
        assert_eq!(error.kind(), TransportErrorKind::Invalid, "waiting does not help: {error}");
        error
    };
    let wrong_authority = showing(&Certificate { authority: strangers.authority.clone(), ..ours.clone() });
    contains(
        &refusal(servers.broker(&vhost, "localhost", &wrong_authority)).await,
        &["UnknownIssuer", "`?cacertfile="],
    );
    contains(&refusal(servers.broker(&vhost, "127.0.0.1", &showing(&ours))).await, &["subjectAltName", "localhost"]);
    let no_certificate = options(&[("cacertfile", &ours.authority)]);
    contains(&refusal(servers.broker(&vhost, "localhost", &no_certificate)).await, &["asks for a certificate of ours"]);
    let wrong_certificate = showing(&Certificate { authority: ours.authority.clone(), ..strangers });
    contains(
        &refusal(servers.broker(&vhost, "localhost", &wrong_certificate)).await,
        &["does not take our certificate", "`certfile`"],
    );
    let plain = vhost.url().replace("amqp://", "amqps://").replace("127.0.0.1", "localhost");
    contains(&refusal(format!("{plain}?{}", showing(&ours))).await, &["nobody speaks TLS at this port"]);
    // another host that is right
    let port = servers.amqps;
    let hosts = servers.broker(&vhost, &format!("127.0.0.1:{port},localhost"), &showing(&ours));
    close(attach(&RabbitMq::new(&hosts).expect("the URL is right"), "ordering", &[]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t_025_a_certificate_takes_the_place_of_a_password() {
    let servers = servers();
    let vhost = servers.vhost().await;
    vhost.url_with_writes(".*").await; // makes a user of the virtual host's name
    let ours = servers.authority.sign(&vhost.name, &[]);
    let url = servers.broker(&vhost, "localhost", &format!("auth_mechanism=external&{}", showing(&ours)));
    let url = url.replace("guest:guest@", "");
    let mut link = attach(&RabbitMq::new(&url).expect("the URL is right"), "ordering", &[]).await;
    link.outgoing.send(outgoing(7, to("ordering"))).expect("the link is open");
    let delivered = delivery(&mut link).await;
    assert_eq!(number(&delivered), 7);
    drop(delivered);
    report(&mut link).await;
    close(link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t_025_the_databases_certificate_is_checked_and_ours_too() {
    let servers = servers();
    let (ours, strangers) = (servers.authority.sign("somebody", &[]), servers.stranger.sign("app", &[]));
    let refusal = async |url: String| {
        let store = outbox::Postgres::new(&url).expect("the URL is right");
        store.migrate().await.expect_err("it is refused")
    };
    let trusting = |authority: &Path| format!("sslmode=verify-full&{}", options(&[("sslrootcert", authority)]));
    let url = servers.database("postgres", "localhost", &trusting(&strangers.authority));
    let error = refusal(url.clone()).await;
    contains(&error, &["UnknownIssuer", "`sslrootcert="]);
    assert!(!error.is_transient(), "waiting does not help: {error}");
    let url_of_another_name = servers.database("postgres", "127.0.0.1", &trusting(&ours.authority));
    contains(&refusal(url_of_another_name).await, &["subjectAltName", "localhost"]);
    let no_certificate = servers.database("app", "localhost", &trusting(&ours.authority));
    contains(&refusal(no_certificate).await, &["valid client certificate", "`sslcert="]);
    let wrong_certificate = Certificate { authority: ours.authority.clone(), ..strangers.clone() };
    let wrong_certificate = servers.database("app", "localhost", &showing_database(&wrong_certificate));
    contains(&refusal(wrong_certificate).await, &["does not take our certificate", "`sslcert`"]);
    let no_tls = servers.database("postgres", "localhost", "sslmode=disable");
    contains(&refusal(no_tls).await, &["the server wants TLS", "sslmode=verify-full"]);
    // and an endpoint does not wait until its time is up
    let broker = transports::InProcess::new();
    let store = outbox::Postgres::new(&url).expect("the URL is right");
    let started = saga_core::Endpoint::builder("ordering", broker, store).start().await;
    let Err(StartError::Store(error)) = started.map(drop) else { panic!("the store was expected to be refused") };
    contains(&error, &["`sslrootcert="]);
}
