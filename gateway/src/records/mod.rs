//! Kafka's RecordBatch v2: validated, built, and read within bounds.
