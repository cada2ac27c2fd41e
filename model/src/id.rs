//! Typed ids and names. A port's id cannot be passed where a network's is wanted.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

macro_rules! uuid_id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh random (version 4) id.
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::from_str(text).map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }
    )*};
}

uuid_id! {
    /// A Neutron network.
    NetworkId;
    /// A Neutron subnet.
    SubnetId;
    /// A Neutron port (of a guest, a router, a floating IP).
    PortId;
    /// A Neutron router.
    RouterId;
    /// A Neutron floating IP.
    FloatingIpId;
    /// One port forwarding of a floating IP.
    PortForwardingId;
    /// A Neutron local IP.
    LocalIpId;
    /// A Neutron security group.
    SecurityGroupId;
    /// One rule of a security group: what a trace names.
    SecurityGroupRuleId;
    /// A Neutron address group.
    AddressGroupId;
    /// A Neutron QoS policy.
    QosPolicyId;
    /// A Neutron address scope.
    AddressScopeId;
    /// A Neutron metering label.
    MeteringLabelId;
    /// A Neutron log.
    LogId;
    /// The identity of one database. Revisions of different epochs cannot be compared: an agent that resumes
    /// with another epoch gets a whole snapshot.
    Epoch;
}

/// A revision of the control plane's state: grows by at least one with every committed write.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a compute host, as in `binding:host_id`: 1 to 253 characters of `[A-Za-z0-9._-]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// A text that is not a host's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host name: expected 1 to 253 characters out of A-Z a-z 0-9 . _ -")]
pub struct HostNameError(String);

impl HostName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HostName {
    type Error = HostNameError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if (1..=253).contains(&text.len()) && text.chars().all(good) {
            Ok(Self(text))
        } else {
            Err(HostNameError(text.chars().take(64).collect()))
        }
    }
}

impl FromStr for HostName {
    type Err = HostNameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_name_refuses_what_is_not_one() {
        for bad in ["", "a b", "a/b", "ü", &"x".repeat(254)] {
            assert!(bad.parse::<HostName>().is_err(), "{bad:?}");
        }
        assert_eq!(
            "node-1.example".parse::<HostName>().unwrap().as_str(),
            "node-1.example"
        );
    }
}
