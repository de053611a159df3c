"""The client side of a round: what a site reads, trains, keeps and permits."""
