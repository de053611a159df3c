"""How sites' parameters are averaged: one module a kind of rule, each of which registers its rules itself."""
