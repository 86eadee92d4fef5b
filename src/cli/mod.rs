//! The command line: roles and tools.

mod config;
mod gateway;
mod group;
mod log;
mod logstore;
mod meta;
mod node;
mod output;
mod publish;
mod role;
mod standalone;
mod subscribe;
mod topic;
mod user;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub(crate) use output::{print_line, print_table};

/// The version with the commit that it was built from.
pub(crate) const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("INTERFLOW_COMMIT"), ")");

#[derive(Parser)]
#[command(
    name = "interflow",
    version = VERSION,
    about = "One durable log, many protocols: MQTT and Kafka over a replicated segment log"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything in one process: gateway, log store and embedded metadata
    Standalone(standalone::StandaloneCommand),
    /// Keep logs, for gateways, as a node of a cluster
    Logstore(logstore::LogstoreCommand),
    /// Serve MQTT and Kafka over the log stores of a cluster; keeps nothing on disk
    Gateway(gateway::GatewayCommand),
    /// Create, list, describe and delete topics
    #[command(subcommand)]
    Topic(topic::Topic),
    /// List and describe consumer groups
    #[command(subcommand)]
    Group(group::Group),
    /// List, drain and remove the nodes of a cluster
    #[command(subcommand)]
    Node(node::Node),
    /// Look into the logs behind a topic
    #[command(subcommand)]
    Log(log::Log),
    /// Serve the metadata to other processes, check it, dump and restore it
    #[command(subcommand)]
    Meta(meta::MetaCommand),
    /// Add, list and remove users
    #[command(subcommand)]
    User(user::User),
    /// Publish MQTT messages
    Pub(publish::Publish),
    /// Subscribe to MQTT topics and print what arrives
    Sub(subscribe::Subscribe),
    /// Print the configuration with the source of every value
    Config(config::Config),
}

/// Where a Kafka listener is, for the tools that speak Kafka.
#[derive(Args, Clone)]
pub(crate) struct Bootstrap {
    /// Address of a Kafka listener
    #[arg(long, short = 'b', default_value = "localhost:9092", value_name = "HOST:PORT")]
    bootstrap: String,
    /// User name (SASL/PLAIN); the password is read from INTERFLOW_PASSWORD
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

impl Bootstrap {
    /// A connection, authenticated if a user was named.
    pub(crate) fn connect(&self) -> anyhow::Result<crate::kafka::Client> {
        let mut client = crate::kafka::Client::connect(&self.bootstrap)?;
        if let Some(user) = &self.user {
            client.authenticate(user, &password_from_env()?)?;
        }
        Ok(client)
    }
}

/// A thousand logs with chains of many segments take some of them.
const MAX_ANSWER_BYTES: u64 = 256 << 20;

/// Where the admin listener is, for the tools that speak its API.
#[derive(Args, Clone)]
pub(crate) struct Admin {
    /// Address of the admin listener
    #[arg(long, default_value = "localhost:8090", value_name = "HOST:PORT")]
    admin: String,
}

impl Admin {
    /// The address of `path` on the admin listener.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }

    /// An agent that reads the body of an error answer too.
    pub(crate) fn agent() -> ureq::Agent {
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(std::time::Duration::from_secs(30)))
            .build()
            .new_agent()
    }

    /// The JSON of an answer, or its text as the error.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<T> {
        let mut answer = answer.map_err(|error| {
            anyhow::anyhow!(
                "cannot reach the admin listener at {}: {error} (is interflow running? see --admin)",
                self.admin
            )
        })?;
        let text = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string()?;
        if !answer.status().is_success() {
            match text.trim() {
                "" => anyhow::bail!("the admin listener answers {}", answer.status()),
                text => anyhow::bail!("{text}"),
            }
        }
        Ok(serde_json::from_str(&text)?)
    }
}

/// The password for the tools, which must not stand on a command line.
pub(crate) fn password_from_env() -> anyhow::Result<String> {
    std::env::var("INTERFLOW_PASSWORD")
        .map_err(|_| anyhow::anyhow!("set INTERFLOW_PASSWORD to the password of --user"))
}

/// Runs the command line; errors go to standard error, with their causes.
pub fn main() -> ExitCode {
    let done = |result: anyhow::Result<()>| result.map(|()| ExitCode::SUCCESS);
    let result = match Cli::parse().command {
        Command::Standalone(command) => done(command.run()),
        Command::Logstore(command) => done(command.run()),
        Command::Gateway(command) => done(command.run()),
        Command::Node(command) => done(command.run()),
        Command::Topic(command) => done(command.run()),
        Command::Group(command) => done(command.run()),
        Command::Log(command) => done(command.run()),
        Command::Meta(command) => command.run(),
        Command::User(command) => done(command.run()),
        Command::Pub(command) => done(command.run()),
        Command::Sub(command) => done(command.run()),
        Command::Config(command) => done(command.run()),
    };
    match result {
        Ok(code) => code,
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
