//! Benches, criterion's; ids are action/family/case. They say how a change moved a figure on one machine. What we promise
//! is in perf-lab, against peers; what CI gates is instruction counts, never times.
