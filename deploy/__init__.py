"""Deployment files; `evenkeel.deploy.kafka` is package data of the embedded broker."""
