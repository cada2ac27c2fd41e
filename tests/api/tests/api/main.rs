//! The API, driven by HTTP: one module a resource, and one for each promise that holds for all of them.

mod address_group;
mod address_scope;
mod authorization;
mod authorization_routes;
mod concurrency;
mod flavor;
mod floating_ip;
mod hostile;
mod identity;
mod keystone;
mod list;
mod log;
mod metering;
mod network;
mod policy;
mod port;
mod port_forwarding;
mod qos;
mod quota;
mod rbac_policy;
mod router;
mod security_group;
mod servers;
mod subnet;
mod subnetpool;
