//! A guest: a namespace whose `eth0` is the other end of a port's device, with stock clients inside.
//!
//! It stands for a virtual machine: it gets IPv4 by `udhcpc` or `dhclient`, IPv6 by the kernel's own SLAAC, and is not
//! told anything else. The host's end is named as Nova names it: `tap` and the first 11 characters of the port's UUID.

use crate::clock::until;
use crate::command::output;
use crate::lab::Lab;
use crate::namespace::Namespace;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// The longest that addresses may take to come.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(15);

/// What `udhcpc` runs at each event: sets what was offered and writes all of it to a file.
const UDHCPC_SCRIPT: &str = r#"#!/bin/sh
case "$1" in
deconfig) ip link set "$interface" up ;;
bound|renew)
    ip addr replace "$ip/$mask" dev "$interface"
    [ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
    # RFC 3442: a client that got classless routes ignores the router option.
    if [ -n "$staticroutes" ]; then
        set -- $staticroutes
        while [ $# -ge 2 ]; do
            case "$2" in
            0.0.0.0) ip route replace "$1" dev "$interface" ;;
            *) ip route replace "$1" via "$2" dev "$interface" onlink ;;
            esac
            shift 2
        done
    elif [ -n "$router" ]; then
        ip route replace default via "${router%% *}" dev "$interface" onlink
    fi
    { echo "ip=$ip/$mask"; echo "router=$router"; echo "dns=$dns"; echo "mtu=$mtu"
      echo "routes=$staticroutes"; echo "domain=$domain"; echo "server=$serverid"; echo "lease=$lease"
    } > "$LEASE_FILE" ;;
esac
"#;

/// What a guest must know of its port to be plugged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFacts {
    /// The port's UUID.
    pub id: String,
    /// Its MAC address.
    pub mac: String,
    /// Its fixed addresses.
    pub addresses: Vec<IpAddr>,
}

impl PortFacts {
    /// Reads a port as the API (or `openstack port show -f json`) shows it.
    ///
    /// # Errors
    /// A field is missing or not an address.
    pub fn from_json(port: &Value) -> Result<Self> {
        let text = |key: &str| {
            port[key]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("the port has no {key}: {port}"))
        };
        let mut addresses = Vec::new();
        for fixed_ip in port["fixed_ips"]
            .as_array()
            .context("the port has no fixed_ips")?
        {
            let address = fixed_ip["ip_address"]
                .as_str()
                .context("a fixed IP has no ip_address")?;
            addresses.push(address.parse().with_context(|| address.to_owned())?);
        }
        Ok(Self {
            id: text("id")?,
            mac: text("mac_address")?,
            addresses,
        })
    }

    /// Name of the host's device.
    #[must_use]
    pub fn device(&self) -> String {
        format!("tap{}", self.id.chars().take(11).collect::<String>())
    }

    /// Its first IPv4 address.
    ///
    /// # Errors
    /// It has none.
    pub fn v4(&self) -> Result<Ipv4Addr> {
        let v4 = |address: &IpAddr| {
            if let IpAddr::V4(v4) = address {
                Some(*v4)
            } else {
                None
            }
        };
        self.addresses
            .iter()
            .find_map(v4)
            .context("the port has no IPv4 address")
    }

    /// Its first IPv6 address.
    ///
    /// # Errors
    /// It has none.
    pub fn v6(&self) -> Result<Ipv6Addr> {
        let v6 = |address: &IpAddr| {
            if let IpAddr::V6(v6) = address {
                Some(*v6)
            } else {
                None
            }
        };
        self.addresses
            .iter()
            .find_map(v6)
            .context("the port has no IPv6 address")
    }
}

/// What a DHCP server offered, as the client saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease(pub BTreeMap<String, String>);

impl Lease {
    /// One value (`ip`, `router`, `dns`, `mtu`, `routes`, `domain`, `server`, `lease`); empty if not offered.
    #[must_use]
    pub fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }
}

/// A guest. See the module's text.
#[derive(Debug)]
pub struct Guest {
    /// Its short name.
    pub name: String,
    /// Where it lives.
    pub namespace: Namespace,
    /// Its port.
    pub port: PortFacts,
}

impl Guest {
    /// Plugs a guest: the host's device appears, the guest's end stays down until [`Guest::start`], as Nova waits for
    /// the port before it starts the machine.
    ///
    /// # Errors
    /// The system refuses.
    pub fn plug(lab: &Lab, host: &Namespace, name: &str, port: PortFacts) -> Result<Self> {
        let namespace = lab.namespace(name)?;
        let (device, mac, guest) = (port.device(), &port.mac, namespace.name());
        host.run(&format!(
            "ip link add {device} type veth peer name eth0 address {mac} netns {guest}"
        ))?;
        host.run(&format!("ip link set {device} up"))?;
        Ok(Self {
            name: name.to_owned(),
            namespace,
            port,
        })
    }

    /// Brings its `eth0` up and waits until it can send: the kernel gives it its queue a little later, and drops what is
    /// sent before.
    ///
    /// # Errors
    /// The system refuses, or the host's end is down.
    pub fn start(&self) -> Result<()> {
        self.namespace.run("ip link set eth0 up")?;
        until(
            &format!("eth0 of {} to be up", self.name),
            ADDRESS_TIMEOUT,
            || {
                let text = self.namespace.run("ip -j link show dev eth0")?;
                let links: Value = serde_json::from_str(&text)?;
                Ok((links[0]["operstate"] == "UP").then_some(()))
            },
        )
    }

    /// Gets an IPv4 address by `busybox udhcpc`.
    ///
    /// # Errors
    /// No lease came.
    pub fn dhcp(&self, lab: &Lab) -> Result<Lease> {
        let script = lab.directory().join(format!("{}.udhcpc", self.name));
        let lease = lab.directory().join(format!("{}.lease", self.name));
        std::fs::write(&script, UDHCPC_SCRIPT)?;
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
        let mut command = self.namespace.command("busybox");
        command
            .args([
                "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "5", "-T", "1",
            ])
            .args(["-O", "mtu", "-O", "staticroutes", "-s"])
            .arg(&script)
            .env("LEASE_FILE", &lease);
        output(&mut command).with_context(|| format!("{}: no DHCP lease", self.name))?;
        let text = std::fs::read_to_string(&lease)?;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Ok(Lease(
            pairs
                .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
                .collect(),
        ))
    }

    /// Gets an IPv4 address by ISC `dhclient`, with its stock script but without touching the host's resolver: asks only
    /// once and lets go of nothing.
    ///
    /// # Errors
    /// No lease came.
    pub fn dhclient(&self, lab: &Lab) -> Result<String> {
        let file = |kind: &str| {
            lab.directory()
                .join(format!("{}.dhclient.{kind}", self.name))
        };
        // The stock script writes /etc/resolv.conf, which is everybody's: only the address is set here.
        let script = file("script");
        std::fs::write(
            &script,
            "#!/bin/sh\n[ -n \"$new_ip_address\" ] && ip addr replace \
             \"$new_ip_address/$new_subnet_mask\" dev \"$interface\"\nexit 0\n",
        )?;
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
        let mut command = self.namespace.command("dhclient");
        command.args(["-4", "-1", "-v", "-sf"]).arg(&script);
        command
            .arg("-lf")
            .arg(file("leases"))
            .arg("-pf")
            .arg(file("pid"))
            .arg("eth0");
        output(&mut command).with_context(|| format!("{}: no DHCP lease", self.name))?;
        Ok(std::fs::read_to_string(file("leases"))?)
    }

    /// Waits until the kernel's SLAAC has made an address of the port's usable, and gives it.
    ///
    /// # Errors
    /// It does not come in time: says which addresses are there instead.
    pub fn slaac(&self) -> Result<Ipv6Addr> {
        let expected = self.port.v6()?;
        let look = || {
            let there = self.addresses()?;
            Ok(there.contains(&IpAddr::V6(expected)).then_some(expected))
        };
        until(
            &format!("{expected} by SLAAC on {}", self.name),
            ADDRESS_TIMEOUT,
            look,
        )
        .with_context(|| format!("it has {:?}", self.addresses().unwrap_or_default()))
    }

    /// The addresses on `eth0` that can be used: no tentative ones.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        let text = self.namespace.run("ip -j address show dev eth0")?;
        let links: Value = serde_json::from_str(&text)?;
        let infos = links[0]["addr_info"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let usable = infos
            .iter()
            .filter(|info| info["tentative"].as_bool() != Some(true));
        Ok(usable
            .filter_map(|info| info["local"].as_str()?.parse().ok())
            .collect())
    }

    /// The MTU of `eth0`, and that which IPv6 uses there.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn mtu(&self) -> Result<(u64, u64)> {
        let text = self.namespace.run("ip -j link show dev eth0")?;
        let links: Value = serde_json::from_str(&text)?;
        let link = links[0]["mtu"].as_u64().context("no mtu")?;
        let v6 = self.namespace.run("cat /proc/sys/net/ipv6/conf/eth0/mtu")?;
        Ok((link, v6.trim().parse()?))
    }

    /// Sets an address and a default route by hand, for networks without DHCP.
    ///
    /// # Errors
    /// The system refuses.
    pub fn configure(&self, address: &str, gateway: Option<IpAddr>) -> Result<()> {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        self.namespace
            .run(&format!("ip address replace {address} dev eth0 {nodad}"))?;
        if let Some(gateway) = gateway {
            let family = if gateway.is_ipv6() { "-6" } else { "-4" };
            self.namespace
                .run(&format!("ip {family} route replace default via {gateway}"))?;
        }
        Ok(())
    }

    /// Unplugs it: its device goes, as when the machine is destroyed.
    ///
    /// # Errors
    /// The device is gone already.
    pub fn unplug(&self, host: &Namespace) -> Result<()> {
        let device = self.port.device();
        if host.run(&format!("ip link show {device}")).is_err() {
            bail!("{}: {device} is not there", self.name);
        }
        host.run(&format!("ip link del {device}")).map(drop)
    }
}
