//! The admin port: metrics, health, users, and a look into logs. HTTP, on loopback.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /metrics` | Prometheus' text format |
//! | `GET /healthz` | 200 while appends are taken, 503 with the reason once journal or metadata failed |
//! | `GET /readyz` | 200 once every listener serves, 503 before and while stopping |
//! | `GET /v1/users`, `POST /v1/users`, `POST /v1/users/remove` | names; add; remove |
//! | `GET /v1/topics/{topic}/logs` | the logs of a topic: [`LogReport`] |

mod logs;
mod routes;
mod serve;
#[cfg(test)]
mod tests;

pub use logs::{LogReport, SegmentReport};
pub use routes::{Admin, Health};
pub use serve::AdminHandler;
