//! The rules of the Networking API: one file per resource, and once what every resource shares (attributes, policy,
//! queries, quotas, the course of each operation).
//!
//! It knows neither HTTP (statuses are `http::error`'s) nor SQL (that is `store`'s).

pub mod address_group;
pub mod address_scope;
pub mod agent;
pub mod agent_scheduler;
pub mod attribute;
mod authorize;
pub mod auto_allocated_topology;
pub mod availability_zone;
pub mod body;
pub mod config;
pub mod conntrack_helper;
pub mod default_security_group_rule;
mod dns;
pub mod error;
pub mod extension;
pub mod extra_route;
pub mod flavor;
pub mod floating_ip;
pub mod floating_ip_pool;
mod ha_network;
pub mod local_ip;
pub mod local_ip_port_association;
pub mod log;
pub mod metering;
pub mod ndp_proxy;
pub mod network;
pub mod network_ip_availability;
mod network_segment;
pub mod network_segment_range;
pub mod policy;
mod policy_syntax;
pub mod port;
mod port_address;
mod port_attribute;
pub mod port_binding;
mod port_dns;
pub mod port_forwarding;
mod port_mac;
mod port_pvlan;
mod port_security;
mod port_segment;
mod port_use;
pub mod qos_policy;
pub mod qos_rule;
pub mod qos_rule_type;
pub mod query;
pub mod quota;
pub mod rbac_policy;
pub mod resource;
pub mod resource_list;
mod resource_request;
pub mod router;
mod router_gateway;
pub mod router_interface;
mod router_mode;
pub mod security_group;
pub mod security_group_rule;
pub mod security_groups_default_statefulness;
pub mod segment;
pub mod service_profile;
pub mod service_provider;
pub mod subnet;
mod subnet_attribute;
mod subnet_check;
mod subnet_segment;
pub mod subnetpool;
mod subnetpool_allocation;
pub mod tag;
mod transit;
pub mod trunk;
pub mod view;

use crate::store::{Store, StoreError};
use attribute::Attributes;
use config::NetworkConfig;
use error::{Error, Result};
use policy::{Caller, Policy};
use std::sync::Arc;

/// What every operation needs.
#[derive(Clone)]
pub struct App {
    /// The database.
    pub store: Store,
    /// Who may do what.
    pub policy: Arc<Policy>,
    /// What the operator set.
    pub config: Arc<NetworkConfig>,
}

impl App {
    /// The application over a database, which is brought to what the configuration says.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn new(
        store: Store,
        policy: Policy,
        config: NetworkConfig,
    ) -> Result<Self, StoreError> {
        network_segment_range::defaults_ensure(&store, &config).await?;
        Ok(Self {
            store,
            policy: Arc::new(policy),
            config: Arc::new(config),
        })
    }

    /// Refuses unless a rule lets the caller do it to this target.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn permit(&self, rule: &str, caller: &Caller, target: &Attributes) -> Result<()> {
        if self.policy.allows(rule, caller, target) {
            Ok(())
        } else {
            Err(Error::Forbidden(format!("rule:{rule}")))
        }
    }
}
