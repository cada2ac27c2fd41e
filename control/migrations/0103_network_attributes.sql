-- Whether guests may send frames with VLAN tags; NULL where nobody said.
ALTER TABLE networks ADD COLUMN vlan_transparent BOOLEAN;
