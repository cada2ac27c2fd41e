//! Random histories of the API: after every few requests the incremental rows and their index are what a full load
//! gives, every host's snapshot in the hub is what is computed from scratch, validates, and is where the feed's messages
//! lead.

use super::concern::concerned;
use super::duties::Duties;
use super::duty::Needs;
use super::mark::Marks;
use super::rows::Rows;
use super::snapshot::View;
use super::trial::Tried;
use crate::app::address_group::AddressGroup;
use crate::app::address_scope::AddressScope;
use crate::app::config::NetworkConfig;
use crate::app::conntrack_helper::ConntrackHelper;
use crate::app::error::Error;
use crate::app::floating_ip::FloatingIp;
use crate::app::local_ip::LocalIp;
use crate::app::local_ip_port_association::LocalIpPortAssociation;
use crate::app::log::Log;
use crate::app::metering::{MeteringLabel, MeteringLabelRule};
use crate::app::ndp_proxy::NdpProxy;
use crate::app::network::Network;
use crate::app::policy::Caller;
use crate::app::policy::Policy;
use crate::app::port::Port;
use crate::app::port_forwarding::PortForwarding;
use crate::app::qos_policy::QosPolicy;
use crate::app::qos_rule::{BandwidthLimit, DscpMarking, QosRule};
use crate::app::router::Router;
use crate::app::router_interface;
use crate::app::security_group::SecurityGroup;
use crate::app::security_group_rule::SecurityGroupRule;
use crate::app::subnet::Subnet;
use crate::app::subnetpool::Subnetpool;
use crate::app::trunk::{self, Trunk};
use crate::app::{App, address_group, resource};
use crate::feed::Hub;
use crate::feed::host::Subscription;
use crate::store::gateway::{physical_network_set, unreachable_set};
use crate::store::tunnel_host::tunnel_host_set;
use crate::store::{Durability, Store, changes_since};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::time::Instant;
use weft_model::{FeedMessage, HostName, HostSnapshot, Remote};

/// One request. Numbers pick among what is there, whatever there is.
#[derive(Clone, Debug)]
enum Request {
    Network {
        external: bool,
    },
    Subnet {
        network: usize,
        v6: bool,
    },
    Port {
        network: usize,
        host: usize,
        group: usize,
        pairs: usize,
    },
    Router {
        external: usize,
    },
    Group,
    Rule {
        group: usize,
        remote: usize,
        kind: usize,
    },
    FloatingIp {
        external: usize,
        port: usize,
    },
    InterfaceAdd {
        router: usize,
        subnet: usize,
    },
    InterfaceRemove {
        router: usize,
        subnet: usize,
    },
    PortUpdate {
        port: usize,
        kind: usize,
        group: usize,
    },
    RouterUpdate {
        router: usize,
        kind: usize,
        external: usize,
    },
    FloatingIpUpdate {
        floating_ip: usize,
        port: usize,
    },
    NetworkUpdate {
        network: usize,
        mtu: u32,
    },
    SubnetUpdate {
        subnet: usize,
        enable_dhcp: bool,
    },
    QosPolicy {
        kind: usize,
    },
    Under {
        what: usize,
        policy: usize,
    },
    Trunk {
        port: usize,
        subport: usize,
    },
    TrunkUpdate {
        trunk: usize,
        kind: usize,
        port: usize,
    },
    AddressGroup {
        group: usize,
        kind: usize,
    },
    PortForwarding {
        floating_ip: usize,
        port: usize,
    },
    NdpProxy {
        router: usize,
        port: usize,
    },
    ConntrackHelper {
        router: usize,
    },
    LocalIp {
        port: usize,
    },
    LocalIpPort {
        local_ip: usize,
        port: usize,
    },
    Metering {
        label: usize,
        kind: usize,
    },
    Log {
        group: usize,
        port: usize,
        kind: usize,
    },
    Pool {
        kind: usize,
    },
    /// Not of the API: a host's tunnel address becomes known, or another, or unknown.
    Gateway {
        host: usize,
        by: usize,
        kind: usize,
    },
    Tunnel {
        host: usize,
        address: u8,
    },
    /// Not of the API: a host's agent asks for the first time.
    Join {
        host: usize,
    },
    Delete {
        collection: usize,
        which: usize,
    },
}

fn request() -> impl Strategy<Value = Request> {
    let n = 0usize..64;
    prop_oneof![
        2 => any::<bool>().prop_map(|external| Request::Network { external }),
        3 => (n.clone(), any::<bool>()).prop_map(|(network, v6)| Request::Subnet { network, v6 }),
        5 => (n.clone(), n.clone(), n.clone(), 0usize..4)
            .prop_map(|(network, host, group, pairs)| Request::Port { network, host, group, pairs }),
        2 => n.clone().prop_map(|external| Request::Router { external }),
        1 => Just(Request::Group),
        3 => (n.clone(), n.clone(), n.clone())
            .prop_map(|(group, remote, kind)| Request::Rule { group, remote, kind }),
        3 => (n.clone(), n.clone()).prop_map(|(external, port)| Request::FloatingIp { external, port }),
        4 => (n.clone(), n.clone()).prop_map(|(router, subnet)| Request::InterfaceAdd { router, subnet }),
        1 => (n.clone(), n.clone())
            .prop_map(|(router, subnet)| Request::InterfaceRemove { router, subnet }),
        3 => (n.clone(), n.clone(), n.clone())
            .prop_map(|(port, kind, group)| Request::PortUpdate { port, kind, group }),
        3 => (n.clone(), n.clone(), n.clone())
            .prop_map(|(router, kind, external)| Request::RouterUpdate { router, kind, external }),
        2 => (n.clone(), n.clone())
            .prop_map(|(floating_ip, port)| Request::FloatingIpUpdate { floating_ip, port }),
        1 => (n.clone(), 1_280u32..1_500).prop_map(|(network, mtu)| Request::NetworkUpdate { network, mtu }),
        1 => (n.clone(), any::<bool>())
            .prop_map(|(subnet, enable_dhcp)| Request::SubnetUpdate { subnet, enable_dhcp }),
        2 => n.clone().prop_map(|kind| Request::QosPolicy { kind }),
        3 => (n.clone(), n.clone()).prop_map(|(what, policy)| Request::Under { what, policy }),
        2 => (n.clone(), n.clone()).prop_map(|(port, subport)| Request::Trunk { port, subport }),
        3 => (n.clone(), n.clone(), n.clone())
            .prop_map(|(trunk, kind, port)| Request::TrunkUpdate { trunk, kind, port }),
        2 => (n.clone(), n.clone()).prop_map(|(group, kind)| Request::AddressGroup { group, kind }),
        3 => (n.clone(), n.clone())
            .prop_map(|(floating_ip, port)| Request::PortForwarding { floating_ip, port }),
        2 => (n.clone(), n.clone()).prop_map(|(router, port)| Request::NdpProxy { router, port }),
        1 => n.clone().prop_map(|router| Request::ConntrackHelper { router }),
        1 => n.clone().prop_map(|port| Request::LocalIp { port }),
        2 => (n.clone(), n.clone())
            .prop_map(|(local_ip, port)| Request::LocalIpPort { local_ip, port }),
        2 => (n.clone(), n.clone()).prop_map(|(label, kind)| Request::Metering { label, kind }),
        3 => (n.clone(), n.clone(), n.clone())
            .prop_map(|(group, port, kind)| Request::Log { group, port, kind }),
        1 => n.clone().prop_map(|kind| Request::Pool { kind }),
        2 => (n.clone(), 0u8..3).prop_map(|(host, address)| Request::Tunnel { host, address }),
        3 => (n.clone(), n.clone(), n.clone())
            .prop_map(|(host, by, kind)| Request::Gateway { host, by, kind }),
        1 => n.clone().prop_map(|host| Request::Join { host }),
        3 => (n.clone(), n).prop_map(|(collection, which)| Request::Delete { collection, which }),
    ]
}

/// A cloud that is driven by its API's rules, and what was made in it.
struct Cloud {
    app: App,
    caller: Caller,
    _folder: tempfile::TempDir,
    made: BTreeMap<&'static str, Vec<String>>,
    rows: Rows,
    duties: Duties,
    hub: Hub,
    /// What the rows did not say.
    marks: Marks,
    /// The agents: their streams, and where those led.
    agents: BTreeMap<HostName, (Subscription, Option<HostSnapshot>)>,
    /// What the API did not take.
    refused: Vec<String>,
}

impl Cloud {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weft.sqlite");
        let store = Store::open(&file, Durability::Process, Arc::new(|| 0))
            .await
            .unwrap();
        let rows = Rows::load(&store).await.unwrap();
        let hub = Hub::new(store.epoch());
        let caller = Caller {
            project_id: "0".repeat(32),
            roles: vec!["admin".to_owned(), "member".to_owned(), "reader".to_owned()],
            ..Caller::default()
        };
        let mut cloud = Self {
            app: App::new(store, Policy::default(), NetworkConfig::default())
                .await
                .unwrap(),
            caller,
            _folder: folder,
            made: BTreeMap::new(),
            rows,
            duties: Duties::default(),
            hub,
            marks: Marks::everything(),
            agents: BTreeMap::new(),
            refused: Vec::new(),
        };
        cloud.join("h1");
        cloud.join("h2");
        cloud.address_scope().await.unwrap();
        cloud
    }

    /// All IPv6 subnets are in one scope, so that NDP proxies may lead to them.
    async fn address_scope(&mut self) -> Result<(), Error> {
        let scope = json!({"name": "scope", "ip_version": 6});
        self.create::<AddressScope>("address_scope", scope).await?;
        let scope = self.pick("address_scope", 0);
        let pool = json!({"name": "pool", "prefixes": ["fd00::/16"], "address_scope_id": scope,
            "default_prefixlen": 64});
        self.create::<Subnetpool>("subnetpool", pool).await
    }

    fn join(&mut self, host: &str) {
        let host: HostName = host.parse().unwrap();
        if !self.agents.contains_key(&host) {
            let stream = self.hub.subscribe(&host, None).unwrap();
            self.agents.insert(host, (stream, None));
        }
    }

    /// One of what was made, if anything was.
    fn pick(&self, kind: &'static str, number: usize) -> Value {
        let made = self.made.get(kind).map_or(&[][..], Vec::as_slice);
        if made.is_empty() {
            json!("00000000-0000-4000-8000-000000000000")
        } else {
            json!(made[number % made.len()])
        }
    }

    fn text(&self, kind: &'static str, number: usize) -> String {
        self.pick(kind, number).as_str().unwrap().to_owned()
    }

    async fn create<R: resource::Resource>(
        &mut self,
        kind: &'static str,
        body: Value,
    ) -> Result<(), Error> {
        let made = resource::create::<R>(&self.app, &self.caller, None, json!({ R::NAME: body }))
            .await?
            .body;
        let object = made.get(R::NAME).unwrap_or(&made);
        let id = object["id"]
            .as_str()
            .unwrap_or_else(|| panic!("no id in {made}"));
        self.made.entry(kind).or_default().push(id.to_owned());
        Ok(())
    }

    async fn update<R: resource::Resource>(&self, id: &str, body: Value) -> Result<(), Error> {
        let body = json!({ R::NAME: body });
        resource::update::<R>(&self.app, &self.caller, id.into(), None, body)
            .await
            .map(drop)
    }

    async fn carry_out(&mut self, number: usize, request: &Request) -> Result<(), Error> {
        let host = |n: usize| ["h1", "h2", "h1", ""][n % 4];
        match *request {
            Request::Network { external: true } => {
                let body = json!({
                    "router:external": true, "provider:network_type": "flat",
                    "provider:physical_network": format!("physnet{number}"),
                });
                self.create::<Network>("external", body).await
            }
            Request::Network { external: false } => {
                let body = json!({"pvlan": number.is_multiple_of(2), "vlan_transparent": number.is_multiple_of(3)});
                self.create::<Network>("network", body).await
            }
            Request::Subnet { network, v6 } => {
                let kind = if network % 3 == 0 {
                    "external"
                } else {
                    "network"
                };
                let network = self.pick(kind, network);
                let mut body = json!({"network_id": network});
                if v6 {
                    body["ip_version"] = json!(6);
                    body["cidr"] = json!(format!("fd00:{number:x}::/64"));
                    body["subnetpool_id"] = self.pick("subnetpool", 0);
                    if kind == "network" {
                        body["ipv6_ra_mode"] = json!("slaac");
                        body["ipv6_address_mode"] = json!("slaac");
                    }
                } else {
                    body["ip_version"] = json!(4);
                    body["cidr"] = json!(format!("10.{}.{}.0/24", number / 256, number % 256));
                }
                self.create::<Subnet>("subnet", body).await
            }
            Request::Port {
                network,
                host: on,
                group,
                pairs,
            } => {
                let kind = if network % 5 == 0 {
                    "external"
                } else {
                    "network"
                };
                let pairs: Vec<Value> = (0..pairs)
                    .map(|n| json!({"ip_address": format!("172.16.{n}.{number}/{}", 24 + n)}))
                    .collect();
                let mut body = json!({"network_id": self.pick(kind, network), "binding:host_id": host(on),
                    "device_owner": "compute:nova", "allowed_address_pairs": pairs});
                if group % 2 == 0 {
                    body["security_groups"] = json!([self.pick("group", group)]);
                }
                self.create::<Port>("port", body).await
            }
            Request::Router { external } => {
                let mut body = json!({});
                if external % 2 == 0 {
                    body["external_gateway_info"] =
                        json!({"network_id": self.pick("external", external)});
                }
                self.create::<Router>("router", body).await
            }
            Request::Group => {
                self.create::<SecurityGroup>("group", json!({"name": format!("g{number}")}))
                    .await
            }
            Request::Rule {
                group,
                remote,
                kind,
            } => {
                let mut body = json!({"security_group_id": self.pick("group", group)});
                body["direction"] = json!(["ingress", "egress"][kind % 2]);
                body["ethertype"] = json!(["IPv4", "IPv6"][kind / 2 % 2]);
                match kind / 4 % 5 {
                    0 => {}
                    1 => {
                        body["protocol"] = json!(["tcp", "udp", "sctp", "6"][kind % 4]);
                        body["port_range_min"] = json!(number);
                        body["port_range_max"] = json!(number + kind);
                    }
                    2 => {
                        body["protocol"] = json!("icmp");
                        body["port_range_min"] = json!(kind);
                    }
                    3 => body["protocol"] = json!(["any", "ipv6-icmp", "255", "vrrp"][kind % 4]),
                    _ => body["port_range_min"] = json!(7),
                }
                match remote % 4 {
                    0 => {}
                    3 => {
                        body["remote_address_group_id"] = self.pick("address_group", remote);
                    }
                    1 => body["remote_group_id"] = self.pick("group", remote),
                    _ => body["remote_ip_prefix"] = json!(["10.0.0.9/8", "fd00::/8"][kind / 2 % 2]),
                }
                self.create::<SecurityGroupRule>("rule", body).await
            }
            Request::FloatingIp { external, port } => {
                let mut body = json!({"floating_network_id": self.pick("external", external)});
                if port % 3 > 0 {
                    body["port_id"] = self.pick("port", port);
                }
                self.create::<FloatingIp>("floating_ip", body).await
            }
            Request::InterfaceAdd { router, subnet } => {
                let body = json!({"subnet_id": self.pick("subnet", subnet)});
                router_interface::add_interface(
                    &self.app,
                    &self.caller,
                    &self.text("router", router),
                    &body,
                )
                .await
                .map(drop)
            }
            Request::InterfaceRemove { router, subnet } => {
                let body = json!({"subnet_id": self.pick("subnet", subnet)});
                router_interface::remove_interface(
                    &self.app,
                    &self.caller,
                    &self.text("router", router),
                    &body,
                )
                .await
                .map(drop)
            }
            Request::PortUpdate { port, kind, group } => {
                let body = match kind % 8 {
                    0 => json!({"admin_state_up": kind % 4 == 0}),
                    1 => json!({"binding:host_id": host(kind / 6)}),
                    2 => json!({"security_groups": [self.pick("group", group)]}),
                    3 => json!({"security_groups": [], "port_security_enabled": false}),
                    4 => json!({"port_security_enabled": true}),
                    5 => json!({"pvlan_type": (["isolated", "promiscuous"][group % 2])}),
                    6 => {
                        json!({"pvlan_type": "community", "pvlan_community": (["a", "b"][group % 2])})
                    }
                    _ => json!({"dns_name": "guest"}),
                };
                self.update::<Port>(&self.text("port", port), body).await
            }
            Request::RouterUpdate {
                router,
                kind,
                external,
            } => {
                let body = match kind % 5 {
                    0 => json!({"admin_state_up": kind % 2 == 0}),
                    1 => {
                        json!({"external_gateway_info": {"network_id": self.pick("external", external)}})
                    }
                    2 => json!({"external_gateway_info": {}}),
                    3 => {
                        json!({"external_gateway_info": {"network_id": self.pick("external", external), "enable_snat": false}})
                    }
                    _ => {
                        json!({"routes": [{"destination": "198.51.100.0/24", "nexthop": format!("10.0.{}.9", kind)}]})
                    }
                };
                self.update::<Router>(&self.text("router", router), body)
                    .await
            }
            Request::FloatingIpUpdate { floating_ip, port } => {
                let port = if port % 2 == 0 {
                    Value::Null
                } else {
                    self.pick("port", port)
                };
                self.update::<FloatingIp>(
                    &self.text("floating_ip", floating_ip),
                    json!({"port_id": port}),
                )
                .await
            }
            Request::NetworkUpdate { network, mtu } => {
                self.update::<Network>(&self.text("network", network), json!({"mtu": mtu}))
                    .await
            }
            Request::SubnetUpdate {
                subnet,
                enable_dhcp,
            } => {
                self.update::<Subnet>(
                    &self.text("subnet", subnet),
                    json!({"enable_dhcp": enable_dhcp}),
                )
                .await
            }
            Request::QosPolicy { kind } => self.qos_policy(kind).await,
            Request::Under { what, policy } => {
                let policy = match policy % 4 {
                    0 => Value::Null,
                    _ => self.pick("policy", policy),
                };
                let body = json!({"qos_policy_id": policy});
                match what % 5 {
                    0 => self.update::<Port>(&self.text("port", what), body).await,
                    1 => {
                        let id = self.text("floating_ip", what);
                        self.update::<FloatingIp>(&id, body).await
                    }
                    2 => {
                        let external = self.pick("external", what);
                        let gateway =
                            json!({"network_id": external, "qos_policy_id": body["qos_policy_id"]});
                        let body = json!({ "external_gateway_info": gateway });
                        self.update::<Router>(&self.text("router", what), body)
                            .await
                    }
                    n => {
                        let kind = ["network", "external"][n % 2];
                        self.update::<Network>(&self.text(kind, what), body).await
                    }
                }
            }
            Request::Trunk { port, subport } => {
                let body = json!({
                    "port_id": self.pick("port", port),
                    "sub_ports": [{"port_id": self.pick("port", subport),
                        "segmentation_type": "vlan", "segmentation_id": number + 1}],
                });
                self.create::<Trunk>("trunk", body).await
            }
            Request::TrunkUpdate { trunk, kind, port } => {
                let (app, caller) = (&self.app, &self.caller);
                let trunk = self.text("trunk", trunk);
                let subport = json!({"port_id": self.pick("port", port),
                    "segmentation_type": "vlan", "segmentation_id": number + 1});
                let body = json!({"sub_ports": [subport]});
                match kind % 3 {
                    0 => {
                        let up = json!({"admin_state_up": kind % 2 == 0});
                        self.update::<Trunk>(&trunk, up).await
                    }
                    1 => trunk::add_subports(app, caller, &trunk, &body)
                        .await
                        .map(drop),
                    _ => trunk::remove_subports(app, caller, &trunk, &body)
                        .await
                        .map(drop),
                }
            }
            Request::Delete { collection, which } => self.delete(collection, which).await,
            Request::Tunnel { host, address } => {
                let host = ["h0", "h1", "h2"][host % 3];
                let tunnel_ip = format!("192.0.2.{address}");
                let tunnel_ip = Some(tunnel_ip.as_str()).filter(|_| address > 0);
                let mut tx = self.app.store.write().await.unwrap();
                tunnel_host_set(&mut tx, host, tunnel_ip).await.unwrap();
                tx.commit().await.unwrap();
                Ok(())
            }
            Request::Gateway { host, by, kind } => {
                let name = |n: usize| ["h0", "h1", "h2"][n % 3];
                let mut tx = self.app.store.write().await.unwrap();
                if kind % 2 == 0 {
                    let names = (0..number * (kind % 3)).map(|n| format!("physnet{n}"));
                    let names: Vec<String> = names.collect();
                    physical_network_set(&mut tx, name(host), &names)
                        .await
                        .unwrap();
                } else if host % 3 != by % 3 {
                    let (by, host) = (name(by), name(host));
                    unreachable_set(&mut tx, by, host, kind % 3 > 0)
                        .await
                        .unwrap();
                }
                tx.commit().await.unwrap();
                Ok(())
            }
            Request::Join { host } => {
                self.join(["h0", "h3"][host % 2]);
                Ok(())
            }
            _ => self.carry_out_address(number, request).await,
        }
    }

    /// What leads to addresses, and what names them.
    async fn carry_out_address(&mut self, number: usize, request: &Request) -> Result<(), Error> {
        match *request {
            Request::AddressGroup { group, kind } => {
                let addresses: Vec<String> = (0..kind % 4)
                    .map(|n| format!("10.{kind}.{n}.0/24"))
                    .collect();
                let body = json!({ "addresses": addresses });
                match kind % 3 {
                    0 => self.create::<AddressGroup>("address_group", body).await,
                    1 => {
                        let id = self.text("address_group", group);
                        let (app, caller) = (&self.app, &self.caller);
                        address_group::add_addresses(app, caller, &id, &body)
                            .await
                            .map(drop)
                    }
                    _ => {
                        let id = self.text("address_group", group);
                        let (app, caller) = (&self.app, &self.caller);
                        address_group::remove_addresses(app, caller, &id, &body)
                            .await
                            .map(drop)
                    }
                }
            }
            Request::PortForwarding { floating_ip, port } => {
                let port = self.text("port", port);
                let body = json!({
                    "internal_port_id": port, "internal_ip_address": self.address(&port, false),
                    "internal_port": 80, "external_port": number + 1, "protocol": "tcp",
                });
                let parent = self.text("floating_ip", floating_ip);
                self.create_in::<PortForwarding>("port_forwarding", &parent, body)
                    .await
            }
            Request::NdpProxy { router, port } => {
                let on = json!({"enable_ndp_proxy": true});
                let router = self.text("router", router);
                let _perhaps_not = self.update::<Router>(&router, on).await;
                let port = self.text("port", port);
                let mut body = json!({"router_id": router, "port_id": port});
                body["ip_address"] = self.address(&port, true);
                self.create::<NdpProxy>("ndp_proxy", body).await
            }
            Request::ConntrackHelper { router } => {
                let body = json!({"protocol": "udp", "port": number + 1, "helper": "tftp"});
                let parent = self.text("router", router);
                self.create_in::<ConntrackHelper>("conntrack_helper", &parent, body)
                    .await
            }
            Request::LocalIp { port } => {
                let port = self.text("port", port);
                let address = self.address(&port, false);
                let body = json!({"local_port_id": port, "local_ip_address": address});
                self.create::<LocalIp>("local_ip", body).await
            }
            Request::Metering { label, kind } => {
                let project = ["0".repeat(32), "1".repeat(32)][kind % 2].clone();
                match kind % 3 {
                    0 => {
                        let body = json!({"shared": kind % 4 == 0, "project_id": project});
                        self.create::<MeteringLabel>("label", body).await
                    }
                    _ => {
                        let body = json!({
                            "metering_label_id": self.pick("label", label),
                            "direction": (["ingress", "egress"][kind % 2]),
                            "remote_ip_prefix": format!("10.{number}.0.0/16"),
                        });
                        self.create::<MeteringLabelRule>("label_rule", body).await
                    }
                }
            }
            Request::Log { group, port, kind } => {
                let mut body = json!({"resource_type": "security_group", "event": "DROP"});
                if kind % 2 == 0 {
                    body["resource_id"] = self.pick("group", group);
                }
                if kind % 3 == 0 {
                    body["target_id"] = self.pick("port", port);
                }
                if kind % 5 == 0 {
                    let log = self.text("log", group);
                    let body = json!({"enabled": kind % 10 == 0});
                    return self.update::<Log>(&log, body).await;
                }
                self.create::<Log>("log", body).await
            }
            Request::Pool { kind } => {
                let scope = match kind % 2 {
                    0 => Value::Null,
                    _ => self.pick("address_scope", 0),
                };
                let body = json!({ "address_scope_id": scope });
                self.update::<Subnetpool>(&self.text("subnetpool", 0), body)
                    .await
            }
            Request::LocalIpPort { local_ip, port } => {
                let port = self.text("port", port);
                let body = json!({"fixed_port_id": port, "fixed_ip": self.address(&port, false)});
                let parent = self.text("local_ip", local_ip);
                let (app, caller) = (&self.app, &self.caller);
                let body = json!({ "port_association": body });
                resource::create::<LocalIpPortAssociation>(app, caller, Some(&parent), body)
                    .await
                    .map(drop)
            }
            _ => Ok(()),
        }
    }

    /// An address of a port, if it has one of the family.
    fn address(&self, port: &str, v6: bool) -> Value {
        let port = port.parse().ok().and_then(|id| self.rows.ports.get(&id));
        let mut ips = port.into_iter().flat_map(|port| &port.fixed_ips);
        let found = ips.find(|ip| ip.ip_address.is_ipv6() == v6);
        json!(found.map(|ip| ip.ip_address))
    }

    async fn create_in<R: resource::Resource>(
        &mut self,
        kind: &'static str,
        parent: &str,
        body: Value,
    ) -> Result<(), Error> {
        let body = json!({ R::NAME: body });
        let (app, caller) = (&self.app, &self.caller);
        let made = resource::create::<R>(app, caller, Some(parent), body)
            .await?
            .body;
        let id = made[R::NAME]["id"].as_str().unwrap().to_owned();
        self.made
            .entry(kind)
            .or_default()
            .push(format!("{parent}/{id}"));
        Ok(())
    }

    async fn delete_in<R: resource::Resource>(
        &self,
        kind: &'static str,
        which: usize,
    ) -> Result<(), Error> {
        let text = self.text(kind, which);
        let (parent, id) = text.split_once('/').unwrap_or(("", &text));
        let place = resource::Place {
            id,
            parent: Some(parent),
        };
        resource::delete::<R>(&self.app, &self.caller, place, None).await
    }

    /// A new policy, or a rule of one.
    async fn qos_policy(&mut self, kind: usize) -> Result<(), Error> {
        let policy = self.text("policy", kind);
        let (app, caller) = (&self.app, &self.caller);
        let rule = |name: &str, body: Value| json!({ name: body });
        match kind % 4 {
            0 => {
                let body = rule("bandwidth_limit_rule", json!({"max_kbps": kind}));
                let parent = Some(policy.as_str());
                resource::create::<QosRule<BandwidthLimit>>(app, caller, parent, body).await?;
            }
            1 => {
                let body = rule("dscp_marking_rule", json!({"dscp_mark": 8}));
                let parent = Some(policy.as_str());
                resource::create::<QosRule<DscpMarking>>(app, caller, parent, body).await?;
            }
            _ => return self.create::<QosPolicy>("policy", json!({})).await,
        }
        Ok(())
    }

    async fn delete(&self, collection: usize, which: usize) -> Result<(), Error> {
        let (app, caller) = (&self.app, &self.caller);
        let id = |kind| self.text(kind, which);
        match collection % 18 {
            0 => {
                resource::delete::<Network>(app, caller, id("network").as_str().into(), None).await
            }
            1 => resource::delete::<Subnet>(app, caller, id("subnet").as_str().into(), None).await,
            2 | 3 => resource::delete::<Port>(app, caller, id("port").as_str().into(), None).await,
            4 => resource::delete::<Router>(app, caller, id("router").as_str().into(), None).await,
            5 => {
                resource::delete::<SecurityGroup>(app, caller, id("group").as_str().into(), None)
                    .await
            }
            6 => {
                resource::delete::<SecurityGroupRule>(app, caller, id("rule").as_str().into(), None)
                    .await
            }
            7 => resource::delete::<Trunk>(app, caller, id("trunk").as_str().into(), None).await,
            8 => {
                resource::delete::<QosPolicy>(app, caller, id("policy").as_str().into(), None).await
            }
            9 => {
                self.delete_in::<PortForwarding>("port_forwarding", which)
                    .await
            }
            10 => {
                self.delete_in::<ConntrackHelper>("conntrack_helper", which)
                    .await
            }
            11 => {
                resource::delete::<NdpProxy>(app, caller, id("ndp_proxy").as_str().into(), None)
                    .await
            }
            12 => {
                resource::delete::<LocalIp>(app, caller, id("local_ip").as_str().into(), None).await
            }
            14 => {
                let id = id("label");
                resource::delete::<MeteringLabel>(app, caller, id.as_str().into(), None).await
            }
            15 => {
                let id = id("label_rule");
                resource::delete::<MeteringLabelRule>(app, caller, id.as_str().into(), None).await
            }
            16 => resource::delete::<Log>(app, caller, id("log").as_str().into(), None).await,
            13 => {
                let id = id("address_group");
                resource::delete::<AddressGroup>(app, caller, id.as_str().into(), None).await
            }
            _ => {
                resource::delete::<FloatingIp>(app, caller, id("floating_ip").as_str().into(), None)
                    .await
            }
        }
    }

    /// The duties in the hub.
    fn kept(&self) -> BTreeMap<HostName, Option<HostSnapshot>> {
        let hosts = self.agents.keys();
        hosts
            .map(|host| (host.clone(), self.hub.snapshot(host)))
            .collect()
    }

    /// Whose duty would be another if what was written since were only tried: nothing of it stays.
    async fn tried(&mut self) -> BTreeSet<HostName> {
        let mut view = self.app.store.read().await.unwrap();
        let changes = changes_since(view.conn(), self.rows.revision, 10_000).await;
        let changes = changes.unwrap().unwrap();
        let touched = changes
            .iter()
            .map(|change| (change.resource.as_str(), change.resource_id.as_str()));
        let mut tried = Tried::default();
        tried.read(view.conn(), touched).await.unwrap();
        let (rows, kept) = (self.rows.clone(), self.kept());
        let hosts = tried.hosts(&mut self.rows, &self.duties, &self.hub);
        assert!(self.rows == rows, "the rows after a try");
        assert_eq!(self.kept(), kept, "the duties after a try");
        hosts
    }

    async fn check(&mut self) {
        let tried = self.tried().await;
        let before = self.kept();
        let marks = self.rows.update(&self.app.store).await.unwrap();
        let written = self.rows.revision;
        let given = super::ports_given(&self.app.store, &mut self.rows, marks);
        let marks = given.await.unwrap();
        // Hosts that are given ports of a gateway's address, or that join, are changed beyond what was written.
        let none_joined = before.values().all(Option::is_some);
        let as_tried = none_joined && self.rows.revision == written;
        let loaded = Rows::load(&self.app.store).await.unwrap();
        assert!(self.rows == loaded, "incremental and full rows");
        let marks = match std::mem::take(&mut self.marks) {
            Marks {
                everything: true, ..
            } => Marks::everything(),
            _ => marks,
        };
        let may_concern = concerned(&self.rows, &marks);
        self.duties
            .update(&self.rows, &marks, &self.hub, Instant::now());
        for (host, now) in self.kept().into_iter().filter(|_| as_tried) {
            let (mut was, now) = (before[&host].clone().unwrap(), now.unwrap());
            was.revision = now.revision;
            assert_eq!(tried.contains(&host), was != now, "{host}");
            let may = may_concern.as_ref().is_none_or(|may| may.contains(&host));
            assert!(was == now || may, "{host}");
        }
        let view = View::new(&self.rows);
        let hosts: BTreeSet<HostName> = self.agents.keys().cloned().collect();
        for (host, (stream, last)) in &mut self.agents {
            let full = view.snapshot(host, &hosts, self.app.store.epoch());
            assert_eq!(full.validate(), [], "{host}");
            nothing_of_others(&self.rows, &full);
            let mut kept = self.hub.snapshot(host).unwrap();
            assert_eq!(self.duties.needs(host), Some(&Needs::of(&full)), "{host}");
            let at = std::mem::replace(&mut kept.revision, full.revision);
            assert_eq!(kept, full, "{host}");
            match stream.message() {
                None => {}
                Some(FeedMessage::Snapshot(snapshot)) => *last = Some(*snapshot),
                Some(FeedMessage::Delta(delta)) => {
                    assert!(!delta.is_empty(), "{host}");
                    *last = Some(last.take().unwrap().apply(*delta).unwrap());
                }
                Some(message) => panic!("{message:?}"),
            }
            kept.revision = at;
            assert_eq!(last.as_ref(), Some(&kept), "{host}");
        }
    }

    /// Carries out all requests, and checks after every `stride` of them.
    async fn play(&mut self, history: &[Request], stride: usize) {
        for (number, request) in history.iter().enumerate() {
            match self.carry_out(number, request).await {
                Ok(()) => {}
                Err(error @ Error::Internal(_)) => panic!("{request:?}: {error}"),
                Err(refused) => self.refused.push(format!("{request:?}: {refused}")),
            }
            if number % stride == stride - 1 {
                self.check().await;
            }
        }
        self.check().await;
    }
}

/// A host is told of a network only if a guest of its own is on it, or can reach it through a router; of other hosts'
/// guests and of members only what those networks and its guests' rules name.
fn nothing_of_others(rows: &Rows, duty: &HostSnapshot) {
    let own: BTreeSet<_> = duty.ports.values().map(|port| port.network_id).collect();
    let mut near = own.clone();
    for (id, router) in &duty.routers {
        let legs = || router.interfaces.iter().map(|leg| leg.network_id);
        let lonely = View::new(rows).is_lonely(&rows.routers[id]);
        let answers = rows.index.elected.get(id) == Some(&duty.host);
        assert!(
            answers || lonely || legs().any(|network| own.contains(&network)),
            "{id}"
        );
        near.extend(legs().chain(router.gateway.iter().map(|leg| leg.network_id)));
    }
    assert!(duty.networks.keys().all(|id| near.contains(id)));
    let known = |id| duty.networks.contains_key(&id);
    assert!(duty.subnets.values().all(|subnet| known(subnet.network_id)));
    assert!(
        duty.remote_ports
            .values()
            .all(|port| known(port.network_id))
    );
    let groups: BTreeSet<_> = duty
        .ports
        .values()
        .flat_map(|port| &port.security_groups)
        .collect();
    let rules = || duty.security_group_rules.values();
    assert!(rules().all(|rule| groups.contains(&rule.security_group_id)));
    let named: BTreeSet<_> = rules()
        .filter_map(|rule| match rule.remote {
            Remote::Group(group) => Some(group),
            _ => None,
        })
        .collect();
    let mut members = duty.security_group_members.iter();
    assert!(members.all(|member| named.contains(&member.security_group_id)));
}

/// Histories: `PROPTEST_CASES`, or as many as take a few seconds.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_history_realizes(history in prop::collection::vec(request(), 1..80), stride in 1usize..5) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut cloud = Cloud::new().await;
            cloud.play(&history, stride).await;
        });
    }
}

/// The histories above are worth something only if the API takes a good part of them.
#[tokio::test]
async fn a_whole_cloud_can_be_made_of_such_requests() {
    let mut cloud = Cloud::new().await;
    let history = [
        Request::Network { external: true },
        Request::Network { external: false },
        Request::Subnet {
            network: 0,
            v6: false,
        },
        Request::Subnet {
            network: 0,
            v6: true,
        },
        Request::Subnet {
            network: 1,
            v6: false,
        },
        Request::Subnet {
            network: 1,
            v6: true,
        },
        Request::Router { external: 0 },
        Request::InterfaceAdd {
            router: 0,
            subnet: 2,
        },
        Request::InterfaceAdd {
            router: 0,
            subnet: 3,
        },
        Request::Group,
        Request::Rule {
            group: 0,
            remote: 1,
            kind: 4,
        },
        Request::Port {
            network: 1,
            host: 0,
            group: 0,
            pairs: 2,
        },
        Request::Port {
            network: 1,
            host: 1,
            group: 1,
            pairs: 0,
        },
        Request::FloatingIp {
            external: 0,
            port: 4,
        },
        Request::FloatingIp {
            external: 0,
            port: 3,
        },
        Request::PortForwarding {
            floating_ip: 1,
            port: 1,
        },
        Request::NdpProxy { router: 0, port: 0 },
        Request::ConntrackHelper { router: 0 },
        Request::LocalIp { port: 1 },
        Request::LocalIpPort {
            local_ip: 0,
            port: 0,
        },
        Request::AddressGroup { group: 0, kind: 3 },
        Request::Rule {
            group: 0,
            remote: 3,
            kind: 4,
        },
        Request::Metering { label: 0, kind: 0 },
        Request::Metering { label: 0, kind: 1 },
        Request::Log {
            group: 0,
            port: 0,
            kind: 2,
        },
        Request::Log {
            group: 0,
            port: 0,
            kind: 1,
        },
        Request::Tunnel {
            host: 2,
            address: 1,
        },
        Request::Join { host: 0 },
    ];
    cloud.play(&history, 1).await;
    assert_eq!(cloud.refused, [""; 0]);
    let snapshot = |host: &str| cloud.hub.snapshot(&host.parse().unwrap()).unwrap();
    let duty = snapshot("h1");
    let sizes = [
        duty.networks.len(),
        duty.subnets.len(),
        duty.ports.len(),
        duty.routers.len(),
        duty.floating_ips.len(),
        duty.remote_ports.len(),
        duty.security_group_members.len(),
        duty.local_ips.len(),
        duty.address_groups.len(),
        duty.metering_labels.len(),
        duty.logs.len(),
    ];
    assert_eq!(sizes, [2, 4, 1, 1, 1, 1, 4, 1, 1, 1, 2]);
    let scopes = duty
        .subnets
        .values()
        .filter(|s| s.address_scope_id.is_some());
    assert_eq!(scopes.count(), 2, "those of IPv6");
    assert_eq!(snapshot("h2").forwarded_ips.len(), 1);
    let router = duty.routers.values().next().unwrap();
    assert!(
        router.gateway.is_some() && router.interfaces.len() == 2,
        "{router:?}"
    );
}
