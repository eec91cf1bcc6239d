"""Where in depth tasks separate: which layers look at a task's own part of a picture."""

from nadkit.questions.depth.courses import MosaicCourse, MosaicCourses, mosaic_course, mosaic_courses
from nadkit.questions.depth.reading import where_answer
from nadkit.questions.depth.verb import COLUMNS, where

__all__ = [
    "COLUMNS", "MosaicCourse", "MosaicCourses", "mosaic_course", "mosaic_courses", "where", "where_answer",
]  # fmt: skip
