//! The network interfaces of the agent's namespace, by netlink, and the few settings that Weft makes on its own.
//!
//! Guarantees: the table that is published is what the kernel last told; changes that were lost (the kernel drops them when
//! nobody reads for long) are made up by asking for all anew. Only interfaces that the caller names are changed.

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkUnspec, MulticastGroup, new_multicast_connection};
use std::collections::BTreeMap;
use std::path::Path;
use tokio::sync::watch;

/// Interfaces by index: a name may wander, an index not.
pub(crate) type Links = BTreeMap<u32, String>;

/// Interfaces that are looked at; a host has a few for each guest.
const LINKS_MAX: usize = 65_536;

/// Why the interfaces cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Open(#[source] std::io::Error),
    /// The kernel refused a question or an order.
    #[error("netlink refuses")]
    Refused(#[from] rtnetlink::Error),
    /// A setting in /proc/sys was refused.
    #[error("cannot write {path}")]
    Sysctl {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Watches the interfaces until nobody reads any more. Returns when the table is there for the first time; the watch goes
/// on in a task.
pub(crate) async fn watch() -> Result<(watch::Receiver<Links>, Handle), LinksError> {
    let (connection, handle, mut messages) =
        new_multicast_connection(&[MulticastGroup::Link]).map_err(LinksError::Open)?;
    tokio::spawn(connection);
    let (sender, receiver) = watch::channel(all(&handle).await?);
    let asking = handle.clone();
    tokio::spawn(async move {
        loop {
            let message = tokio::select! {
                () = sender.closed() => return,
                message = messages.next() => message,
            };
            let Some((message, _)) = message else { return };
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                    let Some(name) = name(&link) else { continue };
                    sender.send_if_modified(|links| {
                        let full =
                            links.len() >= LINKS_MAX && !links.contains_key(&link.header.index);
                        !full && links.insert(link.header.index, name.clone()) != Some(name)
                    });
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                    sender.send_if_modified(|links| links.remove(&link.header.index).is_some());
                }
                NetlinkPayload::Overrun(_) => match all(&asking).await {
                    Ok(links) => drop(sender.send_replace(links)),
                    Err(error) => tracing::error!("interface changes were lost: {error}"),
                },
                _ => {}
            }
        }
    });
    Ok((receiver, handle))
}

async fn all(handle: &Handle) -> Result<Links, LinksError> {
    let mut links = Links::new();
    let mut answers = handle.link().get().execute();
    while let Some(link) = answers.try_next().await? {
        if let Some(name) = name(&link).filter(|_| links.len() < LINKS_MAX) {
            links.insert(link.header.index, name);
        }
    }
    Ok(links)
}

fn name(link: &LinkMessage) -> Option<String> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })
}

/// Makes a guest's device ready: the host's own stack stays silent on it, the network's MTU holds, it is up.
pub(crate) async fn prepare_guest(
    handle: &Handle,
    index: u32,
    name: &str,
    mtu: u32,
) -> Result<(), LinksError> {
    silence(Path::new("/proc/sys/net/ipv6/conf"), name)?;
    let message = LinkUnspec::new_with_index(index).mtu(mtu).up().build();
    let with_mtu = handle.link().set(message).execute().await;
    if with_mtu.is_err() {
        // A device may refuse an MTU; guests hear of it by DHCP and RA all the same.
        tracing::warn!("{name} does not take MTU {mtu}");
        return set_up(handle, index).await;
    }
    Ok(())
}

/// Sets an interface up.
pub(crate) async fn set_up(handle: &Handle, index: u32) -> Result<(), LinksError> {
    let message = LinkUnspec::new_with_index(index).up().build();
    Ok(handle.link().set(message).execute().await?)
}

/// No link-local address, no router solicitations, no MLD: the host does not speak to guests on its own.
fn silence(conf: &Path, name: &str) -> Result<(), LinksError> {
    let path = conf.join(name).join("disable_ipv6");
    match std::fs::write(&path, "1") {
        // A kernel without IPv6 says nothing anyway.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        written => written.map_err(|source| LinksError::Sysctl {
            path: path.display().to_string(),
            source,
        }),
    }
}
