"""Deployment with FLARE: kits, a site's limits, restarts, continued runs, sessions of people, the doctor."""
