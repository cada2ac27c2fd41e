//! Cutting subnets from subnet pools.
//!
//! Guarantees: two subnets of a pool share no address, whoever asks at the same time; a project stays within the
//! pool's quota; what is given is the first block that is free, found without walking over all that is in use.

use super::error::{Error, Result};
use super::resource::Write;
use super::subnet::range_of;
use super::subnetpool::scope_affinity;
use crate::ipam::{self, Range, Step};
use crate::prefix;
use crate::store::Resource;
use crate::store::port::{ip_key, ip_of_key};
use crate::store::subnet::{SubnetRow, subnet_list_network};
use crate::store::subnetpool::{self as store, SubnetpoolRow};
use ipnet::IpNet;

/// Ranges in use that are read at a time while looking for a free one.
const STRETCH: u32 = 512;

/// What a caller wants from a pool.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// This very range.
    Cidr(IpNet),
    /// Any block of a length; the pool's default for none.
    Prefixlen(Option<i64>),
}

/// Cuts a subnet from a pool, for a project.
pub(super) async fn allocate(
    write: &mut Write<'_>,
    pool: &SubnetpoolRow,
    project: &str,
    wanted: Wanted,
) -> Result<IpNet> {
    let prefixlen = match wanted {
        Wanted::Cidr(cidr) => i64::from(cidr.prefix_len()),
        Wanted::Prefixlen(length) => length.unwrap_or(pool.default_prefixlen),
    };
    check_prefixlen(pool, prefixlen)?;
    // Whoever cuts from the same pool at the same time waits here, and then sees what was given.
    write.tx.touch(Resource::Subnetpool, &pool.id).await?;
    check_quota(write, pool, project, prefixlen).await?;
    let found = match wanted {
        Wanted::Cidr(cidr) => named(write, pool, cidr).await?,
        Wanted::Prefixlen(_) => first(write, pool, prefixlen).await?,
    };
    found.ok_or_else(|| {
        let reason = match wanted {
            Wanted::Cidr(_) => {
                "Cannot allocate requested subnet from the available set of prefixes".to_owned()
            }
            Wanted::Prefixlen(_) => {
                format!("Insufficient prefix space to allocate subnet size /{prefixlen}")
            }
        };
        Error::conflict(
            "SubnetAllocationError",
            format!("Failed to allocate subnet: {reason}."),
        )
    })
}

fn check_prefixlen(pool: &SubnetpoolRow, prefixlen: i64) -> Result<()> {
    let (kind, word, bound) = match prefixlen {
        long if long > pool.max_prefixlen => (
            "MaxPrefixSubnetAllocationError",
            "maximum",
            pool.max_prefixlen,
        ),
        short if short < pool.min_prefixlen => (
            "MinPrefixSubnetAllocationError",
            "minimum",
            pool.min_prefixlen,
        ),
        _ => return Ok(()),
    };
    Err(Error::invalid(
        kind,
        format!(
            "Unable to allocate subnet with prefix length {prefixlen}, {word} allowed prefix is {bound}."
        ),
    ))
}

/// Compares in addresses: a unit of IPv4 is one, of IPv6 a /64.
async fn check_quota(
    write: &mut Write<'_>,
    pool: &SubnetpoolRow,
    project: &str,
    prefixlen: i64,
) -> Result<()> {
    let Some(quota) = pool.default_quota.filter(|quota| *quota > 0) else {
        return Ok(());
    };
    let family = if pool.ip_version == 4 { 32 } else { 128 };
    let unit: u128 = if pool.ip_version == 4 { 1 } else { 1 << 64 };
    let addresses = |prefixlen: u32| prefix::size(family, prefixlen).unwrap_or(u128::MAX);
    let mut sum = addresses(u32::try_from(prefixlen).unwrap_or(0));
    for cidr in store::cidrs_of_pool(write.conn(), &pool.id, Some(project)).await? {
        let length = cidr.parse::<IpNet>().map_or(0, |cidr| cidr.prefix_len());
        sum = sum.saturating_add(addresses(u32::from(length)));
    }
    if sum > u128::from(quota.unsigned_abs()).saturating_mul(unit) {
        return Err(Error::conflict(
            "SubnetPoolQuotaExceeded",
            "Per-project subnet pool prefix quota exceeded.",
        ));
    }
    Ok(())
}

/// The range itself, if it is the pool's and free.
async fn named(write: &mut Write<'_>, pool: &SubnetpoolRow, cidr: IpNet) -> Result<Option<IpNet>> {
    if !prefix::contains(&pool.prefixes.0, cidr) {
        return Ok(None);
    }
    let wanted = prefix::range(cidr);
    let next = used(write, pool, wanted.first, 1).await?;
    let free = next.first().is_none_or(|range| range.first > wanted.last);
    Ok(free.then_some(cidr))
}

/// The first free block of a length.
async fn first(
    write: &mut Write<'_>,
    pool: &SubnetpoolRow,
    prefixlen: i64,
) -> Result<Option<IpNet>> {
    let length = u8::try_from(prefixlen).unwrap_or(u8::MAX);
    let cursor = store::cursor_get(write.conn(), &pool.id, prefixlen).await?;
    let mut from = cursor
        .as_deref()
        .and_then(ip_of_key)
        .map_or(0, ipam::number);
    loop {
        let ranges = used(write, pool, from, STRETCH).await?;
        let complete = ranges.len() < STRETCH as usize;
        match prefix::first_free(&pool.prefixes.0, u32::from(length), from, &ranges, complete) {
            Step::Free(number) => {
                let ip = ipam::address(number);
                store::cursor_set(&mut write.tx, &pool.id, prefixlen, &ip_key(ip)).await?;
                return Ok(prefix::prefix(ip, length));
            }
            Step::Exhausted => return Ok(None),
            // Each stretch ends behind at least one range in use, so this comes to an end.
            Step::Continue(at) => from = at.max(from + 1),
        }
    }
}

async fn used(
    write: &mut Write<'_>,
    pool: &SubnetpoolRow,
    from: u128,
    limit: u32,
) -> Result<Vec<Range>> {
    let from = ip_key(ipam::address(from));
    let keys = store::ranges_used(write.conn(), &pool.id, &from, limit).await?;
    let number = |key: &str| ip_of_key(key).map(ipam::number);
    Ok(keys
        .iter()
        .filter_map(|(first, last)| {
            Some(Range {
                first: number(first)?,
                last: number(last)?,
            })
        })
        .collect())
}

/// Writes down the ends of a subnet's range.
pub(super) fn key(row: &mut SubnetRow) {
    let range = range_of(row);
    row.first_key = ip_key(range.network());
    row.last_key = ip_key(range.broadcast());
}

/// A subnet's range is free again.
pub(super) async fn give_back(write: &mut Write<'_>, pool: &str, subnet: &SubnetRow) -> Result<()> {
    let range = range_of(subnet);
    let prefixlen = i64::from(range.prefix_len());
    store::cursors_lower(&mut write.tx, pool, prefixlen, &ip_key(range.network())).await?;
    Ok(())
}

/// A network's subnets of one family are all from one pool, or from pools of one address scope, or from none.
pub(super) async fn check_affinity(
    write: &mut Write<'_>,
    network: &str,
    ip_version: i64,
    pool: Option<&SubnetpoolRow>,
) -> Result<()> {
    let scopes = store::address_scopes_of(write.conn(), &[network]).await?;
    let scope = scopes
        .into_iter()
        .find_map(|(_, version, scope)| scope.filter(|_| version == ip_version));
    if scope.is_some() {
        return if pool.and_then(|pool| pool.address_scope_id.as_ref()) == scope.as_ref() {
            Ok(())
        } else {
            Err(scope_affinity())
        };
    }
    let others = subnet_list_network(write.conn(), network).await?;
    let pool = pool.map(|pool| &pool.id);
    let apart = others
        .iter()
        .any(|other| other.ip_version == ip_version && other.subnetpool_id.as_ref() != pool);
    if apart {
        return Err(Error::invalid(
            "NetworkSubnetPoolAffinityError",
            "Subnets hosted on the same network must be allocated from the same subnet pool.",
        ));
    }
    Ok(())
}
