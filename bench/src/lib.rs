//! Interflow.
