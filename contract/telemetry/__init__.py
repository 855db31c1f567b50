"""What a process tells of its work in words: lines of logs, and spans of traces. Figures are `contract.instruments`."""
