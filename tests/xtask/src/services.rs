//! RabbitMQ and PostgreSQL for the tests: those that the environment names, else installed ones on free ports, else
//! containers, else Debian's packages.

use anyhow::{Context, Result, bail};
use std::{
    fs,
    io::{IsTerminal, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const AMQP: &str = "SAGABUS_TEST_AMQP_URL";
const MANAGEMENT: &str = "SAGABUS_TEST_MANAGEMENT_URL";
const DATABASE: &str = "SAGABUS_TEST_DATABASE_URL";
/// How long a service may take to start.
const START: Duration = Duration::from_secs(90);
/// PostgreSQL's settings besides its port.
const SETTINGS: &str = "-c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=300";
const PACKAGES: [&str; 2] = ["postgresql", "rabbitmq-server"];

/// Where the tests find their services. Services that this process started end soon after it does.
pub(crate) struct Services {
    amqp: String,
    management: String,
    database: String,
}

impl Services {
    pub(crate) fn start() -> Result<Self> {
        if let (Ok(amqp), Ok(management), Ok(database)) =
            (std::env::var(AMQP), std::env::var(MANAGEMENT), std::env::var(DATABASE))
        {
            return Ok(Self { amqp, management, database });
        }
        if let Some(programs) = Programs::find() {
            return programs.start();
        }
        if succeeds("docker", &["info"]) && succeeds("docker", &["compose", "version"]) {
            return Self::in_containers();
        }
        if succeeds("apt-get", &["--version"]) && is_root() {
            install()?;
            let programs = Programs::find()
                .context("the packages are installed, but their programs are not where Debian puts them")?;
            return programs.start();
        }
        bail!(
            "install RabbitMQ and PostgreSQL (`apt-get install {}`), or Docker, or set {AMQP}, {MANAGEMENT} and \
             {DATABASE}",
            PACKAGES.join(" ")
        )
    }

    pub(crate) fn environment(&self) -> [(&'static str, &str); 3] {
        [(AMQP, &self.amqp), (MANAGEMENT, &self.management), (DATABASE, &self.database)]
    }

    fn at(amqp: u16, management: u16, database: u16) -> Result<Self> {
        wait("RabbitMQ", || management_answers(management))?;
        wait("PostgreSQL", || TcpStream::connect(("127.0.0.1", database)).is_ok())?;
        Ok(Self {
            amqp: format!("amqp://guest:guest@127.0.0.1:{amqp}"),
            management: format!("http://guest:guest@127.0.0.1:{management}"),
            database: format!("postgres://postgres@127.0.0.1:{database}"),
        })
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
        Self::at(amqp, management, database)
    }
}

/// Installed programs.
struct Programs {
    postgres: PathBuf,
    rabbitmq: PathBuf,
}

impl Programs {
    fn find() -> Option<Self> {
        let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("bin"))
            .collect();
        versions.sort();
        let postgres = versions
            .into_iter()
            .rev()
            .chain(path())
            .find(|bin| bin.join("initdb").is_file() && bin.join("pg_ctl").is_file())?;
        let rabbitmq = ["/usr/lib/rabbitmq/bin", "/usr/local/sbin"].into_iter().map(PathBuf::from).chain(path());
        let rabbitmq = rabbitmq.map(|bin| bin.join("rabbitmq-server")).find(|program| program.is_file())?;
        Some(Self { postgres, rabbitmq })
    }

    fn start(&self) -> Result<Services> {
        let folder = std::env::temp_dir().join(format!("sagabus-test-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let (amqp, management, database) = (free_port()?, free_port()?, free_port()?);
        println!("starting RabbitMQ (port {amqp}) and PostgreSQL (port {database}) in {}", folder.display());
        let (rabbit, postgres) = (folder.join("rabbitmq"), folder.join("postgres"));
        let group = self.start_rabbitmq(&rabbit, amqp, management)?;
        let stop = format!("kill -TERM -{group}; sleep 3; kill -KILL -{group}; rm -rf '{}'", folder.display());
        // the broker has started, the database not yet: whatever happens from here on, both are stopped
        let stop = format!(
            "{} stop -D '{}/data' -m immediate; {stop}",
            as_postgres(&self.postgres.join("pg_ctl")),
            postgres.display()
        );
        when_we_are_gone(&stop)?;
        self.start_postgres(&postgres, database)?;
        Services::at(amqp, management, database)
    }

    fn start_rabbitmq(&self, folder: &Path, port: u16, management: u16) -> Result<u32> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("enabled_plugins"), "[rabbitmq_management].\n")?;
        let conf = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n\
             disk_free_limit.absolute = 50MB\nvm_memory_high_watermark.absolute = 2GB\n\
             max_message_size = 16777216\n" // as RabbitMQ 4 has it
        );
        fs::write(folder.join("rabbitmq.conf"), conf)?;
        let log = fs::File::create(folder.join("out.log"))?;
        let server = Command::new(&self.rabbitmq)
            .env("HOME", folder)
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_NODENAME", format!("sagabus-test-{}@localhost", std::process::id()))
            .env("RABBITMQ_DIST_PORT", free_port()?.to_string())
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_PID_FILE", folder.join("pid"))
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", self.rabbitmq.display()))?;
        Ok(server.id())
    }

    fn start_postgres(&self, folder: &Path, port: u16) -> Result<()> {
        fs::create_dir_all(folder)?;
        if is_root() {
            run(&format!("chown postgres '{}'", folder.display()))?; // PostgreSQL refuses to run as root
        }
        let data = folder.join("data");
        let program = |name: &str| as_postgres(&self.postgres.join(name));
        let log = folder.join("out.log");
        run(&format!("{} -D '{}' -U postgres -A trust -E UTF8 --locale=C", program("initdb"), data.display()))?;
        run(&format!(
            "{} start -w -D '{}' -l '{}' -o \"-p {port} {SETTINGS}\"",
            program("pg_ctl"),
            data.display(),
            log.display()
        ))
    }
}

/// A command of PostgreSQL's, as a user that it accepts.
fn as_postgres(program: &Path) -> String {
    if is_root() {
        format!("runuser -u postgres -- '{}'", program.display())
    } else {
        format!("'{}'", program.display())
    }
}

fn path() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a shell command; what it printed is shown only if it fails.
fn run(command: &str) -> Result<()> {
    // files, not pipes: a server that is left running would keep a pipe open
    let log = std::env::temp_dir().join(format!("sagabus-xtask-{}.log", std::process::id()));
    let out = fs::File::create(&log)?;
    let status = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .current_dir("/")
        .status()?;
    let printed = fs::read_to_string(&log).unwrap_or_default();
    fs::remove_file(&log)?;
    if !status.success() {
        bail!("`{command}` failed:\n{printed}");
    }
    Ok(())
}

/// Cleans up when this process ends, however it ends.
fn when_we_are_gone(command: &str) -> Result<()> {
    let watch = format!("while kill -0 {}; do sleep 0.5; done; {command}", std::process::id());
    Command::new("sh")
        .args(["-c", &watch])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    Ok(())
}

fn install() -> Result<()> {
    println!("RabbitMQ or PostgreSQL is missing; `apt-get install {}` installs what is missing", PACKAGES.join(" "));
    if std::io::stdin().is_terminal() {
        print!("continue? [y/N] ");
        std::io::stdout().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !answer.trim().eq_ignore_ascii_case("y") {
            bail!("cancelled: nothing was installed");
        }
    }
    let install = format!(
        "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {}",
        PACKAGES.join(" ")
    );
    run(&install)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn wait(what: &str, mut up: impl FnMut() -> bool) -> Result<()> {
    let until = Instant::now() + START;
    while !up() {
        if Instant::now() > until {
            bail!("{what} did not start within {START:?}; its log is in {}", std::env::temp_dir().display());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// The management interface comes up last.
fn management_answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let request = "GET /api/overview HTTP/1.0\r\nHost: localhost\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\r\n";
    let mut answer = [0; 12];
    stream.set_read_timeout(Some(Duration::from_secs(2))).is_ok()
        && stream.write_all(request.as_bytes()).is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer.ends_with(b"200")
}
