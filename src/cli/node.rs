//! `interflow node`: the nodes of a cluster, by the admin API.

use clap::Subcommand;
use interflow_gateway::admin::NodeReport;
use serde_json::json;

use super::{Admin, print_line, print_table};

#[derive(Subcommand)]
pub(crate) enum Node {
    /// List log stores and gateways
    List {
        #[command(flatten)]
        admin: Admin,
    },
    /// Let a log store take no new segments; it serves what it has
    Drain {
        /// Its id
        id: u32,
        /// Let it take new segments again
        #[arg(long)]
        undo: bool,
        #[command(flatten)]
        admin: Admin,
    },
    /// Remove a node for good: one that is stopped, and keeps no log's open segment
    Remove {
        /// Its id
        id: u32,
        /// Also if it lives, or keeps what nobody else may have
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        admin: Admin,
    },
}

impl Node {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List { admin } => {
                let answer = Admin::agent().get(admin.url("/v1/nodes")).call();
                let nodes: Vec<NodeReport> = admin.json(answer)?;
                let rows: Vec<_> = nodes.iter().map(row).collect();
                let heading =
                    ["NODE", "KIND", "STATE", "LIVE", "INCARNATION", "RACK", "ADDRESS", "KAFKA"];
                print_table(&heading, &rows)?;
            }
            Self::Drain { id, undo, admin } => {
                let url = admin.url(&format!("/v1/nodes/{id}/drain"));
                let answer = Admin::agent().post(url).send_json(json!({ "undo": undo }));
                admin.json::<bool>(answer)?;
                print_line(&match undo {
                    false => format!("node {id} takes no new segments"),
                    true => format!("node {id} takes new segments"),
                })?;
            }
            Self::Remove { id, force, admin } => {
                let url = admin.url(&format!("/v1/nodes/{id}/remove"));
                let answer = Admin::agent().post(url).send_json(json!({ "force": force }));
                admin.json::<bool>(answer)?;
                print_line(&format!("node {id} is removed"))?;
            }
        }
        Ok(())
    }
}

fn row(node: &NodeReport) -> Vec<String> {
    let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    vec![
        node.id.to_string(),
        node.kind.clone(),
        if node.is_full { format!("{}, full", node.state) } else { node.state.clone() },
        if node.is_live { "yes" } else { "no" }.to_owned(),
        node.incarnation.to_string(),
        or_none(node.rack.clone()),
        or_none(node.address.clone()),
        or_none(node.endpoints.join(" ")),
    ]
}
