//! `interflow user`: users by the admin API.

use std::io::{BufRead, IsTerminal};

use anyhow::bail;
use clap::Subcommand;
use serde_json::json;

use super::{Admin, print_line};

#[derive(Subcommand)]
pub(crate) enum User {
    /// Add a user, or give one a new password; the password is read from standard input
    Add {
        /// The name
        name: String,
        #[command(flatten)]
        admin: Admin,
    },
    /// List users
    List {
        #[command(flatten)]
        admin: Admin,
    },
    /// Remove a user
    Remove {
        /// The name
        name: String,
        #[command(flatten)]
        admin: Admin,
    },
}

impl User {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Add { name, admin } => {
                if std::io::stdin().is_terminal() {
                    eprintln!("password of {name} (it will be seen on the screen):");
                }
                let mut password = String::new();
                std::io::stdin().lock().read_line(&mut password)?;
                let password = password.trim_end_matches(['\r', '\n']);
                if password.is_empty() {
                    bail!("the password is empty: write it to standard input");
                }
                let body = json!({ "name": name, "password": password });
                let answer = Admin::agent().post(admin.url("/v1/users")).send_json(&body);
                admin.json::<serde_json::Value>(answer)?;
                print_line(&format!("user {name} may connect"))?;
            }
            Self::List { admin } => {
                let answer = Admin::agent().get(admin.url("/v1/users")).call();
                for name in admin.json::<Vec<String>>(answer)? {
                    print_line(&name)?;
                }
            }
            Self::Remove { name, admin } => {
                let body = json!({ "name": name });
                let answer = Admin::agent().post(admin.url("/v1/users/remove")).send_json(&body);
                admin.json::<serde_json::Value>(answer)?;
                print_line(&format!("user {name} removed"))?;
            }
        }
        Ok(())
    }
}
