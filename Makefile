# Weft. `make demo` shows it at work, `make up` leaves it running; both as root on Debian 12.

.PHONY: demo demo-hosts demo-vm up down release conformance test test-vm format lint tidy test-unprivileged test-postgresql test-root test-conformance

# The canonical workflow on real packets, in namespaces of its own; leaves nothing behind.
demo: release
	@$${CARGO_TARGET_DIR:-target}/release/weft-demo

# The same over several hosts, each in a namespace: which host sends what to which, in which tunnel or VLAN.
demo-hosts: release
	@$${CARGO_TARGET_DIR:-target}/release/weft-demo --hosts

# The same in short with two virtual machines under QEMU, on the user engine.
demo-vm: release
	@scripts/guest-image.sh target/vm
	@[ -f /usr/include/libvirt/libvirt.h ] || { apt-get -q update && apt-get -q -y install --no-install-recommends libvirt-dev pkg-config; } >/dev/null
	@cargo build --release --package weft-guest
	@$${CARGO_TARGET_DIR:-target}/release/weft-demo --vm

# The same all-in-one on loopback, left running for the stock client; `make down` ends it.
up: release
	@scripts/up.sh

down:
	@scripts/down.sh

# Both programs at once, always: cargo then builds what they share once.
release:
	@scripts/install.sh build
	@cargo build --release --package weft --package weft-tests-system

# OpenStack's own API suites, whole, and how the results differ from neutron-server's.
conformance:
	@scripts/install.sh test
	cargo xtask conformance

# Everything that CI runs, in this order: the quick to fail first.
test: format lint tidy test-unprivileged test-postgresql test-root test-conformance

format:
	@scripts/install.sh test
	cargo fmt --all --check

lint:
	cargo clippy --quiet --workspace --all-targets -- -D warnings

tidy:
	cargo xtask tidy

test-unprivileged:
	cargo nextest run --workspace

# The API's tests once more, on the other database. The filter and not --package: so nothing is built again.
test-postgresql:
	WEFT_TEST_STORE=postgresql cargo nextest run --workspace -E 'package(weft-tests-api)'

# The binary is what the system tests start. All of the workspace, so that nothing is built twice.
test-root:
	cargo build --workspace --bins
	cargo nextest run --workspace --profile root

# Real guests under QEMU, on the user engine.
test-vm:
	@scripts/install.sh test
	@scripts/guest-image.sh target/vm
	@scripts/install-libvirt.sh
	cargo build --workspace --bins
	cargo nextest run --workspace --profile vm

# The part of OpenStack's suites that tests/conformance/part.txt names, and the API against its own description.
# All of the workspace again, so that nothing is built twice.
test-conformance:
	cargo build --workspace --bins
	$${CARGO_TARGET_DIR:-target}/debug/weft-conformance --part
	$${CARGO_TARGET_DIR:-target}/debug/weft-conformance --openapi
