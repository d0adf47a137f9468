"""Pulls from named hospital systems (PACS, SQL, FHIR) into versioned snapshots; never runs plan code.

Empty for now: datasets are files that the hospital's staff registers.
"""
