//! RabbitMQ.

use crate::{
    programs::Programs,
    shell::{free_port, run, wait, when_we_are_gone},
};
use anyhow::{Context, Result, bail};
use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Nodes with the same cookie may form a cluster.
const COOKIE: &str = "SAGABUSTESTS";

/// A RabbitMQ broker of one's own, on free ports of 127.0.0.1, user guest, password guest.
#[derive(Debug)]
pub struct Broker {
    /// The folder of its programs.
    programs: PathBuf,
    folder: PathBuf,
    amqp: u16,
    management: u16,
    distribution: u16,
    /// Further arguments of Erlang's virtual machine.
    erlang: String,
    /// The leader of its process group, while it runs.
    process: Option<Child>,
}

impl Broker {
    /// Prepares a broker that does not run yet; `erlang` are further arguments of its virtual machine, such as
    /// `-rabbit consumer_timeout 2000`.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub fn prepare(programs: &Programs, erlang: &str) -> Result<Self> {
        let (amqp, management, distribution) = (free_port()?, free_port()?, free_port()?);
        let folder = std::env::temp_dir().join(format!("sagabus-rabbitmq-{}-{amqp}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let cookie = folder.join(".erlang.cookie");
        fs::write(&cookie, COOKIE)?;
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))?;
        // the second lets a certificate take the place of a password, if the broker is configured so
        fs::write(folder.join("enabled_plugins"), "[rabbitmq_management,rabbitmq_auth_mechanism_ssl].\n")?;
        let conf = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n\
             disk_free_limit.absolute = 50MB\nvm_memory_high_watermark.absolute = 2GB\n\
             max_message_size = 16777216\n" // as RabbitMQ 4 has it
        );
        fs::write(folder.join("rabbitmq.conf"), conf)?;
        let (programs, erlang) = (programs.rabbitmq.clone(), erlang.to_owned());
        let broker = Self { programs, folder, amqp, management, distribution, erlang, process: None };
        let group = broker.group_file();
        when_we_are_gone(&format!(
            "group=$(cat '{}') && {{ kill -TERM -$group; kill -CONT -$group; sleep 3; kill -KILL -$group; }}; \
             rm -rf '{}'",
            group.display(),
            broker.folder.display()
        ))?;
        Ok(broker)
    }

    /// Prepares the nodes of one cluster. Each joins a node that runs when it is launched for the first time, so the
    /// first of them must be up before the others are launched.
    ///
    /// # Errors
    /// When their files cannot be written.
    pub fn prepare_cluster(programs: &Programs, nodes: usize) -> Result<Vec<Self>> {
        let brokers: Vec<Self> = (0..nodes).map(|_| Self::prepare(programs, "")).collect::<Result<_>>()?;
        let mut peers = String::from(
            "cluster_formation.peer_discovery_backend = classic_config\n\
             cluster_formation.randomized_startup_delay_range.min = 0\n\
             cluster_formation.randomized_startup_delay_range.max = 1\n",
        );
        for (n, broker) in brokers.iter().enumerate() {
            writeln!(peers, "cluster_formation.classic_config.nodes.{} = {}", n + 1, broker.node())?;
        }
        for broker in &brokers {
            broker.configure(&peers)?;
        }
        Ok(brokers)
    }

    /// Adds lines to its `rabbitmq.conf`, which it reads when it starts.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure(&self, lines: &str) -> Result<()> {
        let conf = fs::OpenOptions::new().append(true).open(self.folder.join("rabbitmq.conf"));
        Ok(conf?.write_all(lines.as_bytes())?)
    }

    /// Starts it without waiting for it.
    ///
    /// # Errors
    /// When it runs already, or its program cannot be run.
    pub fn launch(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("the broker on port {} runs already", self.amqp);
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("out.log"))?;
        let server = self
            .command("rabbitmq-server")
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env("RABBITMQ_CONFIG_FILE", self.folder.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.folder.join("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", self.folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", self.folder.join("log"))
            .env("RABBITMQ_PID_FILE", self.folder.join("pid"))
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", &self.erlang)
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run rabbitmq-server of {}", self.programs.display()))?;
        fs::write(self.group_file(), server.id().to_string())?;
        self.process = Some(server);
        Ok(())
    }

    /// Starts it, and waits until it takes connections.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        let amqp = self.amqp;
        self.up("RabbitMQ starts", || speaks(amqp))
    }

    /// Waits until its management interface answers, which comes up last.
    ///
    /// # Errors
    /// When it does not.
    pub fn managed(&mut self) -> Result<()> {
        let management = self.management;
        self.up("RabbitMQ's management interface answers", || management_answers(management))
    }

    fn up(&mut self, what: &str, mut is_up: impl FnMut() -> bool) -> Result<()> {
        let process = self.process.as_mut().context("the broker does not run")?;
        wait(what, || is_up() || matches!(process.try_wait(), Ok(Some(_))))?;
        if matches!(process.try_wait(), Ok(Some(_))) {
            self.process = None;
            bail!("{what}: it has ended; its log:\n{}", self.log());
        }
        Ok(())
    }

    /// Stops it in good order.
    ///
    /// # Errors
    /// When it does not stop.
    pub fn stop(&mut self) -> Result<()> {
        self.signal("TERM")?;
        self.ended()
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.signal("KILL")?;
        self.ended()
    }

    /// SIGSTOP: its ports take connections, and nobody answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// Goes on after [`Broker::freeze`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.signal("CONT")
    }

    /// Runs `rabbitmqctl` on it.
    ///
    /// # Errors
    /// When that fails.
    pub fn control(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command("rabbitmqctl").args(arguments).output()?;
        if !output.status.success() {
            let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            bail!("rabbitmqctl {}: {said}{why}", arguments.join(" "));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Its address without a virtual host.
    pub fn amqp(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.amqp)
    }

    /// The address of its management interface.
    pub fn management(&self) -> String {
        format!("http://guest:guest@127.0.0.1:{}", self.management)
    }

    /// `host:port` of AMQP.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.amqp)
    }

    /// Its name in a cluster.
    pub fn node(&self) -> String {
        format!("sagabus-{}@localhost", self.amqp)
    }

    /// What it logged to the console.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("out.log")).unwrap_or_default()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .env("HOME", &self.folder)
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_NODENAME", self.node())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        command
    }

    fn group_file(&self) -> PathBuf {
        self.folder.join("group")
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let process = self.process.as_ref().context("the broker does not run")?;
        run(&format!("kill -{signal} -{}", process.id()))
    }

    fn ended(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the broker does not run")?;
        wait("RabbitMQ ends", || !matches!(process.try_wait(), Ok(None)) && !group_lives(process.id()))?;
        fs::remove_file(self.group_file())?;
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.process.is_some()
            && let Err(error) = self.kill()
        {
            eprintln!("the broker on port {} may be left behind: {error:#}", self.amqp);
        }
        let _ = fs::remove_dir_all(&self.folder); // a folder in /tmp is left behind
    }
}

/// Waits until the management interface on a port of 127.0.0.1 answers.
///
/// # Errors
/// When it does not.
pub fn managed(port: u16) -> Result<()> {
    wait("RabbitMQ's management interface answers", || management_answers(port))
}

/// Whether a process of the group is left.
fn group_lives(group: u32) -> bool {
    run(&format!("kill -0 -{group}")).is_ok()
}

/// Whether somebody speaks AMQP on the port: the broker answers the header of the protocol with a method frame.
fn speaks(port: u16) -> bool {
    let mut first = [0; 1];
    ask(port, b"AMQP\0\0\x09\x01", &mut first) && first == [1]
}

fn management_answers(port: u16) -> bool {
    let request = "GET /api/overview HTTP/1.0\r\nHost: localhost\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\r\n";
    let mut answer = [0; 12];
    ask(port, request.as_bytes(), &mut answer) && answer.ends_with(b"200")
}

fn ask(port: u16, question: &[u8], answer: &mut [u8]) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(2))).is_ok()
        && stream.write_all(question).is_ok()
        && stream.read_exact(answer).is_ok()
}
