//! MQTT: sessions, publishes and deliveries over log tails.
