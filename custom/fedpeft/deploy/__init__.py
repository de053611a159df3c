"""What server, hospitals and people run around FLARE: kits, limits of a site, continued runs, sessions, the doctor."""
