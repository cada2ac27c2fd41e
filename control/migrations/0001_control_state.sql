-- One row: which database this is (epoch) and how often it was written (revision).
-- Every transaction that changes what a host must do takes the next revision and stamps the rows it changed.
CREATE TABLE control_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    revision BIGINT NOT NULL
);
