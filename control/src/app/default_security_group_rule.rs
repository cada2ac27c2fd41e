//! Default security group rules: the templates of the rules that new security groups begin with.
//!
//! Groups that are there already keep the rules that they have.

use super::attribute::{Attribute, Attributes, Default, Kind, STANDARD_GLOBAL, Take};
use super::error::{Error, Result};
use super::resource::{Resource, Write, not_found};
use super::security_group_rule::{self as rule, MATCH};
use super::view::{View, view};
use super::{address_group, security_group::SecurityGroup};
use crate::store::default_security_group_rule::{self as store, DefaultSecurityGroupRuleRow};
use crate::store::security_group::{SecurityGroupRow, SecurityGroupRuleRow};
use crate::store::{self as rows, Conn};
use uuid::Uuid;

/// Stands for the new group itself in `remote_group_id`.
const PARENT: &str = "PARENT";

/// Templates at most: every new group gets them all.
pub const TEMPLATES_MAX: usize = 256;

/// The resource.
pub struct DefaultSecurityGroupRule;

impl Resource for DefaultSecurityGroupRule {
    type Row = DefaultSecurityGroupRuleRow;
    type Item = DefaultSecurityGroupRuleRow;

    const NAME: &'static str = "default_security_group_rule";
    const COLLECTION: &'static str = "default_security_group_rules";
    const NOT_FOUND: &'static str = "DefaultSecurityGroupRuleNotFound";
    const TITLE: &'static str = "Default Security Group rule";
    const STANDARD: &'static [Attribute] = STANDARD_GLOBAL;
    const ATTRIBUTES: &'static [Attribute] = &[
        MATCH[0],
        MATCH[1],
        MATCH[2],
        MATCH[3],
        MATCH[4],
        MATCH[5],
        MATCH[6],
        MATCH[7],
        Attribute::new("used_in_default_sg", Kind::Bool)
            .post(Default::Bool(false))
            .filter(),
        Attribute::new("used_in_non_default_sg", Kind::Bool)
            .post(Default::Bool(true))
            .filter(),
    ];

    fn row(item: &DefaultSecurityGroupRuleRow) -> &DefaultSecurityGroupRuleRow {
        item
    }

    async fn complete(
        _conn: &mut Conn,
        rows: Vec<DefaultSecurityGroupRuleRow>,
    ) -> Result<Vec<DefaultSecurityGroupRuleRow>> {
        Ok(rows)
    }

    fn view(row: &DefaultSecurityGroupRuleRow) -> View {
        let parent = row.remote_is_parent.then_some(PARENT);
        view! { row;
            "direction" => row.direction,
            "ethertype" => row.ethertype,
            "protocol" => row.protocol,
            "port_range_min" => row.port_range_min,
            "port_range_max" => row.port_range_max,
            "remote_ip_prefix" => row.remote_ip_prefix,
            "remote_group_id" => parent.or(row.remote_group_id.as_deref()),
            "remote_address_group_id" => row.remote_address_group_id,
            "used_in_default_sg" => row.used_in_default_sg,
            "used_in_non_default_sg" => row.used_in_non_default_sg,
        }
    }

    async fn create(
        write: &mut Write<'_>,
        mut given: Attributes,
    ) -> Result<DefaultSecurityGroupRuleRow> {
        let used_in_default_sg = given.truth("used_in_default_sg").unwrap_or(false);
        let used_in_non_default_sg = given.truth("used_in_non_default_sg").unwrap_or(true);
        let mut shape = rule::shape_of(&mut given)?;
        let remote_is_parent = shape.remote_group_id.as_deref() == Some(PARENT);
        rule::check_remote(&mut shape)?;
        check_there(write, &shape, remote_is_parent).await?;
        let mut row = DefaultSecurityGroupRuleRow {
            id: Uuid::new_v4().to_string(),
            description: shape.description.clone(),
            match_key: rule::match_key(&shape),
            direction: shape.direction,
            ethertype: shape.ethertype,
            protocol: shape.protocol,
            port_range_min: shape.port_range_min,
            port_range_max: shape.port_range_max,
            remote_ip_prefix: shape.remote_ip_prefix,
            normalized_cidr: shape.normalized_cidr,
            remote_is_parent,
            remote_group_id: shape.remote_group_id.filter(|_| !remote_is_parent),
            remote_address_group_id: shape.remote_address_group_id,
            used_in_default_sg,
            used_in_non_default_sg,
            ..DefaultSecurityGroupRuleRow::default()
        };
        refuse_duplicate(write, &row).await?;
        rows::insert(&mut write.tx, &mut row).await?;
        Ok(row)
    }

    async fn update(
        write: &mut Write<'_>,
        mut row: DefaultSecurityGroupRuleRow,
        mut given: Attributes,
    ) -> Result<DefaultSecurityGroupRuleRow> {
        if let Some(description) = given.text_opt("description") {
            row.description = description;
        }
        rows::update(&mut write.tx, &mut row).await?;
        Ok(row)
    }

    async fn delete(write: &mut Write<'_>, row: DefaultSecurityGroupRuleRow) -> Result<()> {
        rows::delete::<DefaultSecurityGroupRuleRow>(&mut write.tx, &row.id).await?;
        Ok(())
    }
}

/// Whom a template speaks of must be there: every group that is made by it refers to it.
async fn check_there(
    write: &mut Write<'_>,
    shape: &SecurityGroupRuleRow,
    remote_is_parent: bool,
) -> Result<()> {
    if let Some(group) = shape
        .remote_group_id
        .as_deref()
        .filter(|_| !remote_is_parent)
    {
        rows::get::<SecurityGroupRow>(write.conn(), group)
            .await?
            .ok_or_else(|| not_found::<SecurityGroup>(group))?;
    }
    if let Some(group) = shape.remote_address_group_id.as_deref() {
        address_group::usable(write.tx.conn(), write.caller, group).await?;
    }
    Ok(())
}

/// A group must not get the same rule by two templates.
async fn refuse_duplicate(write: &mut Write<'_>, row: &DefaultSecurityGroupRuleRow) -> Result<()> {
    let same = store::template_list_match(write.conn(), &row.match_key).await?;
    let clash = same.iter().find(|other| {
        (other.used_in_default_sg && row.used_in_default_sg)
            || (other.used_in_non_default_sg && row.used_in_non_default_sg)
    });
    if let Some(other) = clash {
        return Err(Error::conflict(
            "DefaultSecurityGroupRuleExists",
            format!(
                "Default Security group rule already exists. Rule id is {}.",
                other.id
            ),
        ));
    }
    for is_default in [true, false] {
        let used = if is_default {
            row.used_in_default_sg
        } else {
            row.used_in_non_default_sg
        };
        let there = store::template_list(write.conn(), is_default).await?.len();
        if used && there >= TEMPLATES_MAX {
            return Err(Error::conflict(
                "OverQuota",
                format!("A group begins with at most {TEMPLATES_MAX} rules."),
            ));
        }
    }
    Ok(())
}
