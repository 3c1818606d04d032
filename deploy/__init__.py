"""Deployment files; `deploy.kafka` is package data of the embedded broker."""
