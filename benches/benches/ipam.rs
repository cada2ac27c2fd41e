//! The next free address of a subnet, by how many are in use in front of it, and what a subnet's pools are.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use weft_control::ipam::{Step, default_pools, first_free};

fn allocate(criterion: &mut Criterion) {
    for (family, cidr) in [("ipv4", "10.0.0.0/16"), ("ipv6", "fd00::/64")] {
        let cidr = cidr.parse().expect("a range");
        criterion.bench_function(&format!("pools/ipam/{family}"), |b| {
            b.iter(|| default_pools(black_box(cidr), None));
        });
        let pools = default_pools(cidr, None);
        let first = pools.first().expect("a pool").first;
        for count in [0u128, 100, 10_000] {
            let used: Vec<u128> = (first..first + count).collect();
            assert_eq!(
                first_free(&pools, first, &used, true),
                Step::Free(first + count)
            );
            criterion.bench_function(&format!("allocate/ipam/{family}-{count}"), |b| {
                b.iter(|| first_free(&pools, first, black_box(&used), true));
            });
        }
    }
}

criterion_group!(benches, allocate);
criterion_main!(benches);
