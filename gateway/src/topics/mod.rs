//! The directory of topics: names, ids, partitions and configs, kept current from meta.
