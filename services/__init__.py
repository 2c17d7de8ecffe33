"""The processes: capture on every node, scheduler, query; and the command line that starts them."""
