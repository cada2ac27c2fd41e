//! Service providers: who provides routers. All of them are Weft; the other names are those that flavors and clients
//! made for Neutron know.

use super::App;
use super::error::{Error, Result};
use super::policy::Caller;
use super::query;
use super::router_mode::Modes;
use serde_json::{Map, Value, json};

/// The service that routers are.
pub const L3: &str = "L3_ROUTER_NAT";

/// A provider.
#[derive(Clone, Copy, Debug)]
pub(super) struct Provider {
    pub(super) name: &'static str,
    /// What service profiles call it.
    pub(super) driver: &'static str,
    /// `distributed` and `ha` of its routers, where it has an opinion.
    modes: Option<(bool, bool)>,
}

const PROVIDERS: &[Provider] = &[
    Provider {
        name: "weft",
        driver: "weft",
        modes: None,
    },
    Provider {
        name: "dvrha",
        driver: "neutron.services.l3_router.service_providers.dvrha.DvrHaDriver",
        modes: Some((true, true)),
    },
    Provider {
        name: "dvr",
        driver: "neutron.services.l3_router.service_providers.dvr.DvrDriver",
        modes: Some((true, false)),
    },
    Provider {
        name: "ha",
        driver: "neutron.services.l3_router.service_providers.ha.HaDriver",
        modes: Some((false, true)),
    },
    Provider {
        name: "single_node",
        driver: "neutron.services.l3_router.service_providers.single_node.SingleNodeDriver",
        modes: Some((false, false)),
    },
];

/// The provider with a driver.
pub(super) fn by_driver(driver: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|provider| provider.driver == driver)
}

impl Provider {
    /// Refuses modes that its routers do not have.
    pub(super) fn check(&self, asked: Modes) -> Result<()> {
        let Some((distributed, ha)) = self.modes else {
            return Ok(());
        };
        let wrong = [
            ("distributed", asked.distributed, distributed),
            ("ha", asked.ha, ha),
        ];
        match wrong
            .into_iter()
            .find(|(_, asked, has)| asked.is_some_and(|asked| asked != *has))
        {
            None => Ok(()),
            Some((name, _, has)) => Err(Error::invalid_input(format!(
                "Provider {} does not support {name}={}",
                self.name, !has
            ))),
        }
    }
}

/// GET /v2.0/service-providers
///
/// # Errors
/// [`Error::Forbidden`].
pub fn list(app: &App, caller: &Caller, pairs: &[(String, String)]) -> Result<Value> {
    if !app
        .policy
        .allows("get_service_provider", caller, &Map::new())
    {
        return Err(Error::Forbidden("rule:get_service_provider".to_owned()));
    }
    let fields = query::fields(pairs);
    let wanted = |provider: &Value| {
        pairs.iter().all(|(name, value)| match &provider[name] {
            Value::String(text) => text == value,
            Value::Bool(truth) => truth.to_string() == value.to_ascii_lowercase(),
            _ => true,
        })
    };
    let mut providers: Vec<Value> = PROVIDERS
        .iter()
        .map(|provider| {
            json!({
                "service_type": L3,
                "name": provider.name,
                "default": provider.modes.is_none(),
            })
        })
        .filter(wanted)
        .collect();
    for provider in providers.iter_mut().filter_map(Value::as_object_mut) {
        provider.retain(|name, _| fields.is_empty() || fields.contains(name));
    }
    Ok(json!({ "service_providers": providers }))
}
