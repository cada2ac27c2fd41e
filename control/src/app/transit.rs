//! Transits: by which hosts exchange the frames of an external network that they share.
//!
//! Guarantees: a transit's VNI comes from the ranges of tunnels and is never a network's. An external network on a
//! physical one has a transit as soon as it is both; it keeps it until it is gone.

use super::error::Result;
use super::network_segment;
use super::resource::Write;
use crate::store::gateway::{TransitRow, transit_get, transit_insert};
use crate::store::segment::SegmentRow;
use weft_model::NetworkType;

/// Sees to it that a network that is external has a transit, if it is on a physical network.
pub(super) async fn ensure(
    write: &mut Write<'_>,
    network: &str,
    segments: &[SegmentRow],
) -> Result<()> {
    let physical = segments
        .iter()
        .any(|segment| matches!(segment.network_type.as_str(), "flat" | "vlan"));
    if !physical || transit_get(write.conn(), network).await?.is_some() {
        return Ok(());
    }
    let mut number = SegmentRow {
        network_id: network.to_owned(),
        network_type: "vxlan".to_owned(),
        ..SegmentRow::default()
    };
    // The ranges that are shared: the network is the cloud's, whoever made it.
    if let Err(error) = network_segment::choose(write, &mut number, "").await {
        tracing::warn!(
            network, %error,
            "no VXLAN number is left for the transit: hosts cannot share the external network"
        );
        return Ok(());
    }
    let row = TransitRow {
        network_id: network.to_owned(),
        vni: number.segmentation_id.unwrap_or_default(),
        mtu: write.app.config.mtu_max(NetworkType::Vxlan).into(),
    };
    transit_insert(&mut write.tx, &row).await?;
    Ok(())
}
