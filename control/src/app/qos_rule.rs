//! Rules of QoS policies: the five types, each under its policy's path and most under a path of its own (the alias).
//!
//! Guarantees: a policy has one rule of a type and direction at most, never a guarantee above a limit, and never
//! guarantees for one direction beside some for any; a change of a rule is a change of its policy.

use super::attribute::{self, Attribute, Attributes, Default, Kind, Take};
use super::error::{Error, Result};
use super::policy::Caller;
use super::qos_policy::QosPolicy;
use super::resource::{self, Resource, Write};
use super::view::{View, view};
use crate::store::qos_policy::{QosPolicyRow, QosRuleRow, guest_port_get, rule_list_policies};
use crate::store::{self as rows, Conn};
use serde_json::Value;
use std::marker::PhantomData;
use uuid::Uuid;

/// Neutron's largest number: its database's.
pub const NUMBER_MAX: i64 = 2_147_483_647;

/// The marks of RFC 2474's class selectors, RFC 2597, RFC 3246 and RFC 5865.
pub const DSCP_MARKS: [i64; 22] = [
    0, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 44, 46, 48, 56,
];

/// Directions of limits and of bandwidth guarantees.
pub const DIRECTIONS: &[&str] = &["ingress", "egress"];
/// Directions of packet rate guarantees.
pub const DIRECTIONS_AND_ANY: &[&str] = &["any", "ingress", "egress"];

/// One type of rule.
pub trait RuleKind: Send + Sync + 'static {
    /// Its name in a policy's rules.
    const TYPE: &'static str;
    /// Its name in bodies and messages.
    const NAME: &'static str;
    /// The plural.
    const COLLECTION: &'static str;
    /// What the policy calls it.
    const POLICY: &'static str;
    /// The name in bodies of the path of its own.
    const ALIAS: &'static str;
    /// The plural.
    const ALIASES: &'static str;
    /// What it says.
    const ATTRIBUTES: &'static [Attribute];
}

macro_rules! kind {
    ($(#[$doc:meta])* $kind:ident, $type:literal, [$($attribute:expr),* $(,)?]) => {
        $(#[$doc])*
        pub struct $kind;

        impl RuleKind for $kind {
            const TYPE: &'static str = $type;
            const NAME: &'static str = concat!($type, "_rule");
            const COLLECTION: &'static str = concat!($type, "_rules");
            const POLICY: &'static str = concat!("policy_", $type, "_rule");
            const ALIAS: &'static str = concat!("alias_", $type, "_rule");
            const ALIASES: &'static str = concat!("alias_", $type, "_rules");
            const ATTRIBUTES: &'static [Attribute] = &[$($attribute),*];
        }
    };
}

const fn number(name: &'static str) -> Attribute {
    Attribute::new(name, Kind::Int(0, NUMBER_MAX))
        .required()
        .put()
        .sort()
}

const fn burst(name: &'static str) -> Attribute {
    Attribute::new(name, Kind::Int(0, NUMBER_MAX))
        .post(Default::Int(0))
        .put()
        .sort()
}

const fn direction(values: &'static [&'static str]) -> Attribute {
    Attribute::new("direction", Kind::OneOf(values))
        .post(Default::Text("egress"))
        .put()
        .sort()
}

kind!(
    /// At most so many kilobits a second.
    BandwidthLimit, "bandwidth_limit",
    [number("max_kbps"), burst("max_burst_kbps"), direction(DIRECTIONS)]
);
kind!(
    /// At most so many thousand packets a second.
    PacketRateLimit, "packet_rate_limit",
    [number("max_kpps"), burst("max_burst_kpps"), direction(DIRECTIONS)]
);
kind!(
    /// A mark in packets from the guest.
    DscpMarking, "dscp_marking",
    [Attribute::new("dscp_mark", Kind::Custom(dscp_mark)).required().put().sort()]
);
kind!(
    /// At least so many kilobits a second: Nova's scheduler keeps the promise.
    MinimumBandwidth, "minimum_bandwidth",
    [number("min_kbps"), direction(DIRECTIONS)]
);
kind!(
    /// At least so many thousand packets a second: Nova's scheduler keeps the promise.
    MinimumPacketRate, "minimum_packet_rate",
    [number("min_kpps"), direction(DIRECTIONS_AND_ANY)]
);

fn dscp_mark(value: &Value) -> Result<Value, String> {
    let mark = attribute::int_of(value, 0, 63)?;
    if DSCP_MARKS.contains(&mark) {
        Ok(mark.into())
    } else {
        Err(format!("'{mark}' is not in {DSCP_MARKS:?}"))
    }
}

/// The resource under its policy's path.
pub struct QosRule<K>(PhantomData<K>);

/// The resource under its own path, where its id is all that is said.
pub struct QosRuleAlias<K>(PhantomData<K>);

impl<K: RuleKind> Resource for QosRule<K> {
    type Row = QosRuleRow;
    type Item = QosRuleRow;

    const NAME: &'static str = K::NAME;
    const COLLECTION: &'static str = K::COLLECTION;
    const NOT_FOUND: &'static str = "QosRuleNotFound";
    const TITLE: &'static str = "QoS rule";
    const ATTRIBUTES: &'static [Attribute] = K::ATTRIBUTES;
    const STANDARD: &'static [Attribute] = attribute::STANDARD_ID;
    const POLICY: &'static str = K::POLICY;
    const PARENT: Option<&'static str> = Some("policy_id");
    const KIND: Option<(&'static str, &'static str)> = Some(("rule_type", K::TYPE));

    fn row(item: &QosRuleRow) -> &QosRuleRow {
        item
    }

    fn parent_id(item: &QosRuleRow) -> &str {
        &item.policy_id
    }

    async fn complete(_conn: &mut Conn, rows: Vec<QosRuleRow>) -> Result<Vec<QosRuleRow>> {
        Ok(of_kind::<K>(rows))
    }

    fn view(item: &QosRuleRow) -> View {
        rule_view(item, K::ATTRIBUTES)
    }

    async fn target(
        conn: &mut Conn,
        _caller: &Caller,
        attributes: &Attributes,
    ) -> Result<Attributes> {
        target(conn, attributes).await
    }

    /// Whoever may not see the policy is refused by the rules' own permissions.
    async fn parent(conn: &mut Conn, _caller: &Caller, attributes: &Attributes) -> Result<()> {
        policy_of(conn, attributes).await.map(|_policy| ())
    }

    async fn create(write: &mut Write<'_>, given: Attributes) -> Result<QosRuleRow> {
        let policy = policy_of(write.conn(), &given).await?;
        let mut row = QosRuleRow {
            id: Uuid::new_v4().to_string(),
            project_id: policy.project_id.clone(),
            policy_id: policy.id.clone(),
            rule_type: K::TYPE.to_owned(),
            ..QosRuleRow::default()
        };
        set(&mut row, given);
        check(write, &row).await?;
        rows::insert(&mut write.tx, &mut row).await?;
        policy_changed(write, &row).await?;
        Ok(row)
    }

    async fn update(
        write: &mut Write<'_>,
        item: QosRuleRow,
        given: Attributes,
    ) -> Result<QosRuleRow> {
        update(write, item, given).await
    }

    async fn delete(write: &mut Write<'_>, item: QosRuleRow) -> Result<()> {
        delete(write, &item).await
    }
}

impl<K: RuleKind> Resource for QosRuleAlias<K> {
    type Row = QosRuleRow;
    type Item = QosRuleRow;

    const NAME: &'static str = K::ALIAS;
    const COLLECTION: &'static str = K::ALIASES;
    const NOT_FOUND: &'static str = "QosRuleNotFound";
    const TITLE: &'static str = "QoS rule";
    const ATTRIBUTES: &'static [Attribute] = K::ATTRIBUTES;
    const STANDARD: &'static [Attribute] = attribute::STANDARD_ID;
    const PARENT: Option<&'static str> = Some("policy_id");
    const KIND: Option<(&'static str, &'static str)> = Some(("rule_type", K::TYPE));

    fn row(item: &QosRuleRow) -> &QosRuleRow {
        item
    }

    fn parent_id(item: &QosRuleRow) -> &str {
        &item.policy_id
    }

    async fn complete(_conn: &mut Conn, rows: Vec<QosRuleRow>) -> Result<Vec<QosRuleRow>> {
        Ok(of_kind::<K>(rows))
    }

    fn view(item: &QosRuleRow) -> View {
        rule_view(item, K::ATTRIBUTES)
    }

    async fn target(
        conn: &mut Conn,
        _caller: &Caller,
        attributes: &Attributes,
    ) -> Result<Attributes> {
        target(conn, attributes).await
    }

    /// There is no such operation: a rule is made under its policy.
    async fn create(_write: &mut Write<'_>, _given: Attributes) -> Result<QosRuleRow> {
        Err(Error::bad_request("A QoS rule is created under its policy"))
    }

    async fn update(
        write: &mut Write<'_>,
        item: QosRuleRow,
        given: Attributes,
    ) -> Result<QosRuleRow> {
        update(write, item, given).await
    }

    async fn delete(write: &mut Write<'_>, item: QosRuleRow) -> Result<()> {
        delete(write, &item).await
    }
}

fn of_kind<K: RuleKind>(mut rows: Vec<QosRuleRow>) -> Vec<QosRuleRow> {
    rows.retain(|row| row.rule_type == K::TYPE);
    rows
}

/// A rule as its policy shows it.
pub(super) fn view_in_policy(row: &QosRuleRow) -> Option<Box<serde_json::value::RawValue>> {
    let attributes = match row.rule_type.as_str() {
        BandwidthLimit::TYPE => BandwidthLimit::ATTRIBUTES,
        PacketRateLimit::TYPE => PacketRateLimit::ATTRIBUTES,
        DscpMarking::TYPE => DscpMarking::ATTRIBUTES,
        MinimumBandwidth::TYPE => MinimumBandwidth::ATTRIBUTES,
        _ => MinimumPacketRate::ATTRIBUTES,
    };
    let mut view = rule_view(row, attributes);
    view.remove("project_id");
    view.put("qos_policy_id", &row.policy_id);
    view.put("type", &row.rule_type);
    view.raw()
}

fn rule_view(row: &QosRuleRow, attributes: &[Attribute]) -> View {
    let mut view = view! { bare row; };
    for attribute in attributes {
        let number = match attribute.name {
            "direction" => {
                view.put("direction", &row.direction);
                continue;
            }
            "max_kbps" => row.max_kbps,
            "max_burst_kbps" => row.max_burst_kbps,
            "max_kpps" => row.max_kpps,
            "max_burst_kpps" => row.max_burst_kpps,
            "min_kbps" => row.min_kbps,
            "min_kpps" => row.min_kpps,
            _ => row.dscp_mark,
        };
        view.put(attribute.name, &number);
    }
    view
}

/// Takes over what is given; the attributes' table lets only the type's own through.
fn set(row: &mut QosRuleRow, mut given: Attributes) {
    if let Some(direction) = given.text_opt("direction") {
        row.direction = direction;
    }
    for (name, field) in [
        ("max_kbps", &mut row.max_kbps),
        ("max_burst_kbps", &mut row.max_burst_kbps),
        ("max_kpps", &mut row.max_kpps),
        ("max_burst_kpps", &mut row.max_burst_kpps),
        ("min_kbps", &mut row.min_kbps),
        ("min_kpps", &mut row.min_kpps),
        ("dscp_mark", &mut row.dscp_mark),
    ] {
        *field = given.int(name).or(*field);
    }
}

async fn policy_of(conn: &mut Conn, attributes: &Attributes) -> Result<QosPolicyRow> {
    let id = attributes.get("policy_id").and_then(Value::as_str);
    let id = id.unwrap_or_default();
    rows::get::<QosPolicyRow>(conn, id)
        .await?
        .ok_or_else(|| resource::not_found::<QosPolicy>(id))
}

async fn target(conn: &mut Conn, attributes: &Attributes) -> Result<Attributes> {
    let policy = policy_of(conn, attributes).await?;
    let mut target = Attributes::new();
    target.insert("ext_parent:project_id".to_owned(), policy.project_id.into());
    Ok(target)
}

async fn update(
    write: &mut Write<'_>,
    mut row: QosRuleRow,
    given: Attributes,
) -> Result<QosRuleRow> {
    set(&mut row, given);
    check(write, &row).await?;
    rows::update(&mut write.tx, &mut row).await?;
    policy_changed(write, &row).await?;
    Ok(row)
}

async fn delete(write: &mut Write<'_>, row: &QosRuleRow) -> Result<()> {
    check_guests(write, row).await?;
    rows::delete::<QosRuleRow>(&mut write.tx, &row.id).await?;
    policy_changed(write, row).await
}

/// The hosts that enforce the policy, and those who watch its revision, hear of its rules by it.
async fn policy_changed(write: &mut Write<'_>, row: &QosRuleRow) -> Result<()> {
    if let Some(mut policy) = rows::get::<QosPolicyRow>(write.conn(), &row.policy_id).await? {
        rows::update(&mut write.tx, &mut policy).await?;
    }
    Ok(())
}

/// Refuses a rule that does not go with the policy's others.
async fn check(write: &mut Write<'_>, row: &QosRuleRow) -> Result<()> {
    for other in rule_list_policies(write.conn(), &[&row.policy_id]).await? {
        if other.id == row.id {
            continue;
        }
        if other.rule_type == row.rule_type && other.direction == row.direction {
            return Err(Error::conflict(
                "QoSRulesConflict",
                format!(
                    "Rule {} conflicts with rule {} which already exists in QoS Policy {}.",
                    row.rule_type, other.id, row.policy_id
                ),
            ));
        }
        if let Some((value, existing)) = contradiction(row, &other) {
            return Err(Error::conflict(
                "QoSRuleParameterConflict",
                format!(
                    "Unable to add the rule with value {value} to the policy {} as the existing rule \
                     of type {} has value {existing}.",
                    row.policy_id, other.rule_type
                ),
            ));
        }
    }
    check_guests(write, row).await
}

/// What of two rules cannot be true at once: a guarantee above the limit, or guarantees for any direction and for one.
fn contradiction(row: &QosRuleRow, other: &QosRuleRow) -> Option<(String, String)> {
    if row.direction == other.direction {
        let above = |min: Option<i64>, max: Option<i64>| min > max && max.is_some();
        if above(other.min_kbps, row.max_kbps) {
            return Some((text(row.max_kbps), text(other.min_kbps)));
        }
        if above(row.min_kbps, other.max_kbps) {
            return Some((text(row.min_kbps), text(other.max_kbps)));
        }
    }
    let mixed = row.rule_type == MinimumPacketRate::TYPE
        && other.rule_type == MinimumPacketRate::TYPE
        && (row.direction == "any") != (other.direction == "any");
    mixed.then(|| (row.direction.clone(), other.direction.clone()))
}

fn text(number: Option<i64>) -> String {
    number.unwrap_or_default().to_string()
}

/// A guarantee is Nova's to place: it cannot change under a guest that runs.
async fn check_guests(write: &mut Write<'_>, row: &QosRuleRow) -> Result<()> {
    let placed = [MinimumBandwidth::TYPE, MinimumPacketRate::TYPE].contains(&&*row.rule_type);
    if placed && let Some(port) = guest_port_get(write.conn(), &row.policy_id).await? {
        return Err(Error::NotImplemented(format!(
            "Cannot update QoS policies/rules backed by resources tracked in Placement: port {port} \
             is a guest's."
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(kind: &str, direction: &str, min: Option<i64>, max: Option<i64>) -> QosRuleRow {
        QosRuleRow {
            rule_type: kind.to_owned(),
            direction: direction.to_owned(),
            min_kbps: min,
            max_kbps: max,
            ..QosRuleRow::default()
        }
    }

    #[test]
    fn a_guarantee_is_not_above_the_limit_of_its_direction() {
        let limit = rule("bandwidth_limit", "egress", None, Some(100));
        for (direction, min, refused) in [
            ("egress", 100, false),
            ("egress", 101, true),
            ("ingress", 101, false),
        ] {
            let guarantee = rule("minimum_bandwidth", direction, Some(min), None);
            assert_eq!(contradiction(&guarantee, &limit).is_some(), refused);
            assert_eq!(contradiction(&limit, &guarantee).is_some(), refused);
        }
    }

    #[test]
    fn only_neutrons_marks_are_marks() {
        let good = (0..=64).filter(|mark| dscp_mark(&Value::from(*mark)).is_ok());
        assert_eq!(good.collect::<Vec<i64>>(), DSCP_MARKS);
    }
}
