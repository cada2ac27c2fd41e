//! Metering labels: what traffic is counted together, by rules of address ranges.

use super::attribute::{Attribute, Attributes, Default, Kind, STANDARD_BARE, Take, cidr_of, ip_of};
use super::authorize;
use super::error::{Error, Result};
use super::resource::{Resource, Write};
use super::view::{View, view};
use crate::store::metering::{MeteringLabelRow, MeteringLabelRuleRow, metering_label_rule_list};
use crate::store::{self as rows, Conn};
use ipnet::IpNet;
use serde_json::Value;
use uuid::Uuid;

/// Rules of one label.
const RULES_MAX: usize = 1_024;

/// A label.
pub struct MeteringLabel;

impl Resource for MeteringLabel {
    type Row = MeteringLabelRow;
    type Item = MeteringLabelRow;

    const NAME: &'static str = "metering_label";
    const COLLECTION: &'static str = "metering_labels";
    const NOT_FOUND: &'static str = "MeteringLabelNotFound";
    const TITLE: &'static str = "Metering label";
    const STANDARD: &'static [Attribute] = STANDARD_BARE;
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("name", Kind::Text(255))
            .post(Default::Text(""))
            .sort(),
        Attribute::new("description", Kind::Text(1_024))
            .post(Default::Text(""))
            .sort(),
        Attribute::new("shared", Kind::Bool)
            .post(Default::Bool(false))
            .sort(),
    ];

    fn row(item: &MeteringLabelRow) -> &MeteringLabelRow {
        item
    }

    async fn complete(
        _conn: &mut Conn,
        rows: Vec<MeteringLabelRow>,
    ) -> Result<Vec<MeteringLabelRow>> {
        Ok(rows)
    }

    fn view(row: &MeteringLabelRow) -> View {
        view! { bare row;
            "name" => row.name,
            "description" => row.description,
            "shared" => row.shared,
        }
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<MeteringLabelRow> {
        let mut row = MeteringLabelRow {
            id: Uuid::new_v4().to_string(),
            project_id: given.text("project_id"),
            name: given.text("name"),
            description: given.text("description"),
            shared: given.truth("shared").unwrap_or(false),
            ..MeteringLabelRow::default()
        };
        rows::insert(&mut write.tx, &mut row).await?;
        Ok(row)
    }

    async fn update(
        _write: &mut Write<'_>,
        row: MeteringLabelRow,
        _given: Attributes,
    ) -> Result<MeteringLabelRow> {
        // None of its attributes can change.
        Ok(row)
    }

    async fn delete(write: &mut Write<'_>, row: MeteringLabelRow) -> Result<()> {
        rows::delete::<MeteringLabelRow>(&mut write.tx, &row.id).await?;
        Ok(())
    }
}

/// Reads an address or a range, which is kept as it was given.
fn prefix(value: &Value) -> Result<Value, String> {
    if ip_of(value).is_err() {
        cidr_of(value)?;
    }
    Ok(value.clone())
}

fn range_of(text: &str) -> Option<IpNet> {
    let address = text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    address.or_else(|| text.parse().ok())
}

/// A rule of a label.
pub struct MeteringLabelRule;

impl Resource for MeteringLabelRule {
    type Row = MeteringLabelRuleRow;
    type Item = MeteringLabelRuleRow;

    const NAME: &'static str = "metering_label_rule";
    const COLLECTION: &'static str = "metering_label_rules";
    const NOT_FOUND: &'static str = "MeteringLabelRuleNotFound";
    const TITLE: &'static str = "Metering label rule";
    const STANDARD: &'static [Attribute] = STANDARD_BARE;
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("metering_label_id", Kind::Uuid)
            .required()
            .sort(),
        Attribute::new("direction", Kind::OneOf(&["ingress", "egress"]))
            .required()
            .sort(),
        Attribute::new("remote_ip_prefix", Kind::Custom(prefix))
            .post(Default::Null)
            .nullable()
            .sort(),
        Attribute::new("source_ip_prefix", Kind::Custom(prefix))
            .post(Default::Null)
            .nullable()
            .sort(),
        Attribute::new("destination_ip_prefix", Kind::Custom(prefix))
            .post(Default::Null)
            .nullable()
            .sort(),
        Attribute::new("excluded", Kind::Bool)
            .post(Default::Bool(false))
            .sort(),
    ];

    fn row(item: &MeteringLabelRuleRow) -> &MeteringLabelRuleRow {
        item
    }

    async fn complete(
        _conn: &mut Conn,
        rows: Vec<MeteringLabelRuleRow>,
    ) -> Result<Vec<MeteringLabelRuleRow>> {
        Ok(rows)
    }

    fn view(row: &MeteringLabelRuleRow) -> View {
        view! { bare row;
            "metering_label_id" => row.metering_label_id,
            "direction" => row.direction,
            "remote_ip_prefix" => row.remote_ip_prefix,
            "source_ip_prefix" => row.source_ip_prefix,
            "destination_ip_prefix" => row.destination_ip_prefix,
            "excluded" => row.excluded,
        }
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<MeteringLabelRuleRow> {
        let label =
            authorize::see::<MeteringLabel>(write, &given.text("metering_label_id")).await?;
        let mut row = MeteringLabelRuleRow {
            id: Uuid::new_v4().to_string(),
            project_id: label.project_id,
            metering_label_id: label.id,
            direction: given.text("direction"),
            remote_ip_prefix: given.text_opt("remote_ip_prefix"),
            source_ip_prefix: given.text_opt("source_ip_prefix"),
            destination_ip_prefix: given.text_opt("destination_ip_prefix"),
            excluded: given.truth("excluded").unwrap_or(false),
            ..MeteringLabelRuleRow::default()
        };
        check(write, &row).await?;
        rows::insert(&mut write.tx, &mut row).await?;
        let label = &row.metering_label_id;
        write.tx.touch(rows::Resource::MeteringLabel, label).await?;
        Ok(row)
    }

    async fn update(
        _write: &mut Write<'_>,
        row: MeteringLabelRuleRow,
        _given: Attributes,
    ) -> Result<MeteringLabelRuleRow> {
        // None of its attributes can change.
        Ok(row)
    }

    async fn delete(write: &mut Write<'_>, row: MeteringLabelRuleRow) -> Result<()> {
        rows::delete::<MeteringLabelRuleRow>(&mut write.tx, &row.id).await?;
        // Hosts hear of labels, with their rules.
        let label = &row.metering_label_id;
        write.tx.touch(rows::Resource::MeteringLabel, label).await?;
        Ok(())
    }
}

async fn check(write: &mut Write<'_>, row: &MeteringLabelRuleRow) -> Result<()> {
    let ends = row.source_ip_prefix.is_some() || row.destination_ip_prefix.is_some();
    if row.remote_ip_prefix.is_some() && ends {
        return Err(Error::invalid(
            "Invalid",
            "Cannot use 'remote-ip-prefix' in conjunction with 'source-ip-prefix' or \
             'destination-ip-prefix'.",
        ));
    }
    if row.remote_ip_prefix.is_none() && !ends {
        return Err(Error::invalid(
            "Invalid",
            "You must define at least one of the following parameters 'remote_ip_prefix', or \
             'source_ip_prefix' or 'destination_ip_prefix'.",
        ));
    }
    let others = metering_label_rule_list(write.conn(), &row.metering_label_id).await?;
    if others.len() >= RULES_MAX {
        return Err(Error::invalid_input(format!(
            "a metering label has at most {RULES_MAX} rules"
        )));
    }
    let remote = row.remote_ip_prefix.as_deref();
    let Some(new) = remote.and_then(range_of) else {
        return Ok(());
    };
    let overlaps = others.iter().any(|other| {
        let range = other.remote_ip_prefix.as_deref().and_then(range_of);
        other.direction == row.direction
            && other.excluded == row.excluded
            && range.is_some_and(|range| {
                range.contains(&new.network()) || new.contains(&range.network())
            })
    });
    if overlaps {
        return Err(Error::conflict(
            "MeteringLabelRuleOverlaps",
            format!(
                "Metering label rule with remote_ip_prefix '{}' overlaps another.",
                remote.unwrap_or_default()
            ),
        ));
    }
    Ok(())
}
