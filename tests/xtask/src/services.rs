//! RabbitMQ and PostgreSQL for the tests: those that the environment names, else installed ones on free ports, else
//! containers, else Debian's packages.

use anyhow::{Result, bail};
use servers::{Broker, INSTALL, Programs, Server, free_port, succeeds, when_we_are_gone};
use std::{
    net::{Ipv4Addr, TcpStream},
    process::Command,
};

const AMQP: &str = "SAGABUS_TEST_AMQP_URL";
const MANAGEMENT: &str = "SAGABUS_TEST_MANAGEMENT_URL";
const DATABASE: &str = "SAGABUS_TEST_DATABASE_URL";
/// Connections that PostgreSQL takes: many tests run at a time.
const CONNECTIONS: u32 = 300;

/// Where the tests find their services. Services that this process started end when it does, or soon after.
pub(crate) struct Services {
    amqp: String,
    management: String,
    database: String,
    /// Those that are this process's own.
    _owned: Option<(Broker, Server)>,
}

impl Services {
    pub(crate) fn start() -> Result<Self> {
        if let (Ok(amqp), Ok(management), Ok(database)) =
            (std::env::var(AMQP), std::env::var(MANAGEMENT), std::env::var(DATABASE))
        {
            return Ok(Self { amqp, management, database, _owned: None });
        }
        if let Some(programs) = Programs::find() {
            return Self::installed(&programs);
        }
        if succeeds("docker", &["info"]) && succeeds("docker", &["compose", "version"]) {
            return Self::in_containers();
        }
        if servers::can_install() {
            return Self::installed(&Programs::install()?);
        }
        bail!("install RabbitMQ and PostgreSQL (`{INSTALL}`), or Docker, or set {AMQP}, {MANAGEMENT} and {DATABASE}")
    }

    pub(crate) fn environment(&self) -> [(&'static str, &str); 3] {
        [(AMQP, &self.amqp), (MANAGEMENT, &self.management), (DATABASE, &self.database)]
    }

    fn installed(programs: &Programs) -> Result<Self> {
        let mut broker = Broker::prepare(programs, "")?;
        println!("starting RabbitMQ ({}) and PostgreSQL", broker.address());
        broker.launch()?; // it starts while the database's files are made
        let server = Server::prepare(programs, CONNECTIONS)?;
        server.start()?;
        broker.managed()?;
        let (amqp, management, database) = (broker.amqp(), broker.management(), server.url("postgres"));
        Ok(Self { amqp, management, database, _owned: Some((broker, server)) })
    }

    fn in_containers() -> Result<Self> {
        let (amqp, management, database) = (free_port()?, free_port()?, free_port()?);
        let project = format!("sagabus-test-{}", std::process::id());
        println!("starting RabbitMQ and PostgreSQL with docker compose, project {project}");
        let up = Command::new("docker")
            .args(["compose", "--project-name", &project, "up", "--detach", "rabbitmq", "postgres"])
            .env("SAGABUS_AMQP_PORT", amqp.to_string())
            .env("SAGABUS_MANAGEMENT_PORT", management.to_string())
            .env("SAGABUS_POSTGRES_PORT", database.to_string())
            .status()?;
        if !up.success() {
            bail!("`docker compose up` failed");
        }
        when_we_are_gone(&format!("docker compose --project-name {project} down --volumes"))?;
        servers::managed(management)?;
        servers::wait("PostgreSQL starts", || TcpStream::connect((Ipv4Addr::LOCALHOST, database)).is_ok())?;
        Ok(Self {
            amqp: format!("amqp://guest:guest@127.0.0.1:{amqp}"),
            management: format!("http://guest:guest@127.0.0.1:{management}"),
            database: format!("postgres://postgres@127.0.0.1:{database}"),
            _owned: None,
        })
    }
}
